import datetime as dt
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.base.errors import UserError
from stages.tables.table_output import table_output

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1))
def test_pandas_reads_text_cells_back_as_they_were(tmp_path, suffix, rows):
    path = tmp_path / f"t{suffix}"
    texts, others = map(list, zip(*rows, strict=True))
    with table_output(str(path), ["a,\t", "b", "c"]) as write:
        write(
            [
                pa.array(texts, pa.string()),
                pa.array(others, pa.string()),
                pa.array([1.5] * len(rows)),
            ]
        )
    sep = "\t" if suffix == ".tsv" else ","
    table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, lineterminator=None)
    assert table.columns.tolist() == ["a,\t", "b", "c"]
    normal = [[cell.replace("\r\n", "\n").replace("\r", "\n") for cell in row] for row in rows]
    text = table[["a,\t", "b"]].map(lambda cell: cell.replace("\r\n", "\n").replace("\r", "\n"))
    assert text.to_numpy().tolist() == normal


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_are_written_in_the_shortest_text_that_reads_back_as_the_same(tmp_path, dtype):
    numbers = np.array([0.1, 1 / 3, -0.0, 1e-30, 1e30, 12345678.0, np.finfo(dtype).max], dtype)
    path = tmp_path / "t.csv"
    with table_output(str(path), ["x"]) as write:
        write([pa.array(numbers)])
    lines = path.read_text().splitlines()
    assert lines[:2] == ["x", "0.1"]
    assert np.array([float(line) for line in lines[1:]], dtype).tobytes() == numbers.tobytes()


def test_parquet_keeps_the_columns_types(tmp_path):
    path = tmp_path / "t.parquet"
    days = pa.array([dt.date(2024, 1, 31), None])
    with table_output(str(path), ["day", "n"]) as write:
        write([days, pa.array([1, 2])])
        write([days, pa.array([3, 4])])
    table = pq.read_table(path)
    assert table.schema.types == [pa.date32(), pa.int64()]
    assert table["n"].to_pylist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_table_without_rows_has_its_header(tmp_path, name):
    with table_output(str(tmp_path / name), ["a", "b"]):
        pass
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    assert read(tmp_path / name).columns.tolist() == ["a", "b"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_after_an_error_there_is_no_file_or_the_old_one(tmp_path, name):
    path = tmp_path / name
    for before in (None, b"old"):
        if before:
            path.write_bytes(before)
        with suppress(ZeroDivisionError), table_output(str(path), ["a"]) as write:
            write([pa.array([1])])
            raise ZeroDivisionError
        assert [file.read_bytes() for file in tmp_path.iterdir()] == ([before] if before else [])


def test_an_output_of_another_format_is_refused():
    with pytest.raises(UserError) as error, table_output("t.xlsx", ["a"]):
        pass
    assert str(error.value) == "--output must end in .csv, .tsv or .parquet. Got t.xlsx."


def test_the_header_is_written_with_the_first_batch(capsysbinary):
    with suppress(ZeroDivisionError), table_output("-", ["a"]):
        raise ZeroDivisionError
    assert capsysbinary.readouterr().out == b""


def test_a_column_that_is_not_text_is_refused(tmp_path):
    with pytest.raises(UserError) as error, table_output(str(tmp_path / "t.csv"), ["a"]) as write:
        write([pa.array([[1]])])
    assert str(error.value).startswith("The table cannot be written as .csv: ")
