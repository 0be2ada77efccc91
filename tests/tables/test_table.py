import datetime as dt
import decimal
import re
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.base.errors import UserError
from stages.base.files import RAW
from stages.base.params import load_params
from stages.tables.columns import choose_columns, read_rows
from stages.tables.table import Table
from tests.conftest import ROOT


def names(columns):
    return [column.name for column in columns]


def test_columns_are_chosen_by_name_features_first(raw, read):
    raw("t.csv", "a,b,c\n1,2,3\n4,5,6\n")
    assert names(read("t.csv", target="a")[0]) == ["b", "c", "a"]
    columns, rows = read("t.csv", features=["c", "a"], target="b")
    assert names(columns) == ["c", "a", "b"]
    assert rows.tolist() == [[3, 1, 2], [6, 4, 5]]


@pytest.mark.parametrize(
    ("name", "content", "prepare"),
    [
        ("t.csv", "x,y\n1.5,2\n-3e2,.5\n", {}),
        ("t.csv", "x;y\n1,5;2\n-3e2;,5\n", {"delimiter": ";", "decimal": ","}),
        ("t.csv", "x|y\r\n1.5|2\r\n-3e2|.5\r\n", {"delimiter": "|"}),
        ("t.csv", '\ufeff"x", y \n"1.5", 2\n\n-300 ,+0.5', {}),
        ("t.tsv", "x\ty\n1.5\t2\n-3E+2\t5e-1\n", {}),
        ("t.tsv", "x\ty\n1,5\t2\n-3E+2\t5e-1\n", {"decimal": ","}),
        ("t.csv", "name,x,y\nälpha,1.5,2\n,-300,0.5\n", {"features": ["x"]}),
    ],
)
def test_all_text_formats_of_a_table_give_the_same_numbers(raw, read, name, content, prepare):
    raw(name, content)
    columns, rows = read(name, **prepare)
    assert names(columns) == ["x", "y"]
    assert rows.tolist() == [[1.5, 2.0], [-300.0, 0.5]]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(
    values=st.lists(st.tuples(*2 * [st.floats(allow_nan=False, allow_infinity=False)]), min_size=1)
)
def test_every_number_is_the_nearest_double(raw, read, values):
    raw("t.csv", "x,y\n" + "".join(f"{x!r},{y:.25e}\n" for x, y in values))
    assert read("t.csv", dtype="float64")[1].tolist() == [[x, y] for x, y in values]


def test_long_decimals_are_rounded_once(raw, read):
    halfway = "9007199254740993.00000000000000000000000000000000000000000000001"
    raw("t.csv", f"x,y\n{halfway},0.1000000000000000055511151231257827021181583404541015625\n")
    assert read("t.csv")[1].tolist() == [[9007199254740994.0, 0.1]]


def test_many_batches_are_read_in_order(raw, read):
    table = np.random.default_rng(0).standard_normal((200_000, 2))
    path = raw("t.csv", "")
    pd.DataFrame(table, columns=["x", "y"]).to_csv(path, index=False)
    assert path.stat().st_size > 6_000_000
    assert read("t.csv")[1].tobytes() == table.tobytes()
    pd.DataFrame(table, columns=["x", "y"]).to_parquet(path.with_suffix(".parquet"))
    assert read("t.parquet")[1].tobytes() == table.tobytes()


def test_csv_and_parquet_of_the_same_table_give_the_same_bits(raw, read):
    for suffix in ("csv", "parquet"):
        raw(f"t.{suffix}", (ROOT / f"tests/data/auto_mpg.{suffix}").read_bytes())
    rows, others = (read(f"t.{suffix}", target="mpg")[1] for suffix in ("csv", "parquet"))
    assert rows.tobytes() == others.tobytes()


def test_integer_boolean_decimal_and_float32_columns_of_parquet_are_numbers(raw, read):
    table = pa.table(
        {
            "i": pa.array([2**53 + 1, -1]),
            "b": pa.array([True, False]),
            "d": pa.array(["0.10", "7.00"]).cast(pa.decimal128(5, 2)),
            "f": pa.array([0.1, 2.0], pa.float32()),
            "y": pa.array([1, 2], pa.uint8()),
        }
    )
    pq.write_table(table, raw("t.parquet", ""))
    assert read("t.parquet")[1].tolist() == [
        [9007199254740992.0, 1.0, 0.1, float(np.float32(0.1)), 1.0],
        [-1.0, 0.0, 7.0, 2.0, 2.0],
    ]


def test_missing_cells_are_nan_if_they_are_to_be_dropped(raw, read):
    raw("t.csv", "x,y\n1,\nNA,2\n-999,3\nnan,4\n1e999,5\n6,-inf\n7, \n8,9\n")
    _, rows = read("t.csv", missing="drop", missing_values=["NA", -999])
    is_kept = np.isfinite(rows).all(axis=1)
    assert is_kept.tolist() == 7 * [False] + [True]
    table = pa.table({"x": pa.array([1.0, None, -999.0]), "y": pa.array([1, 2, 3])})
    pq.write_table(table, raw("t.parquet", ""))
    assert np.isnan(read("t.parquet")[1][:, 0]).tolist() == [False, True, True]


def test_number_markers_are_rounded_as_the_column_and_are_not_booleans(raw, read):
    x = pa.array([-99.9, 0.0], pa.float32())
    pq.write_table(pa.table({"x": x, "y": pa.array([True, False])}), raw("t.parquet", ""))
    raw("t.csv", "x,y\n-99.9,true\n1,false\n")
    for name in ("t.parquet", "t.csv"):
        rows = read(name, missing="drop", missing_values=[-99.9, 0])[1]
        assert np.isnan(rows[0, 0])
        assert not np.isnan(rows[:, 1]).any()


CELL = "Set `prepare.missing` to drop or fill, or correct the file."
QUOTES = "Put quotes around the whole cell, and double each quote inside it."
CHOICE = "Correct the names in params.yaml; the columns are"


@pytest.mark.parametrize(
    ("content", "prepare", "sentence"),
    [
        ("", {}, "data/raw/t.csv is damaged: Empty CSV file. Correct the file."),
        (b"x,y\n\xff,1\n", {}, "data/raw/t.csv is not UTF-8 text. Save it as UTF-8."),
        ("x,y\n1,2\n".encode("utf-16"), {}, "data/raw/t.csv is not UTF-8 text. Save it as UTF-8."),
        (b"x,y,\xff\n1,2,3\n", {}, "data/raw/t.csv is not UTF-8 text. Save it as UTF-8."),
        (
            b"x,y\n" + 500_000 * b"1,2\n" + b"\xff,1\n",
            {},
            "data/raw/t.csv is not UTF-8 text. Save it as UTF-8.",
        ),
        (
            "x,y\n1,2\n\n3\n4,5,6\n",
            {},
            "data/raw/t.csv is damaged: CSV parse error: Row #3: Expected 2 columns, got 1: 3."
            " Correct the file.",
        ),
        ("a,b\n1,2\n", {}, f"data/raw/t.csv: no column `y`. {CHOICE} `a`, `b`."),
        (
            "x,y\n1,2\n",
            {"features": ["x", "z", "w"]},
            f"data/raw/t.csv: no column `w`, `z`. {CHOICE} `x`, `y`.",
        ),
        (
            "y\n1\n",
            {},
            "data/raw/t.csv: no column is left beside the target, `y`. Add a column to learn from.",
        ),
        (
            "x,y\n1,2\n,3\n,\n",
            {},
            "data/raw/t.csv, row 3, column `x`: empty cell (and 1 more cell of this column)."
            f" {CELL}\ndata/raw/t.csv, row 4, column `y`: empty cell. {CELL}",
        ),
        (
            "x,y\n1,2\n3,NA\n",
            {"missing_values": ["NA"]},
            f'data/raw/t.csv, row 3, column `y`: missing or not finite: "NA". {CELL}',
        ),
        (
            "name;x;y\n1;2;3\n",
            {},
            'data/raw/t.csv: one column, `name;x;y`. Set the delimiter to ";".',
        ),
        (
            "\ufeffx;y\r\n1,5;2,5\r\n",
            {},
            'data/raw/t.csv: one column, `x;y`. Set the delimiter to ";".',
        ),
        (
            "x;y\n1.5;1\n",
            {"decimal": ",", "delimiter": ";"},
            'data/raw/t.csv, row 2, column `x`: not a number: "1.5". Correct the column, list it in'
            " `prepare.categories` if its cells are categories, or list it in `prepare.exclude`.",
        ),
        (
            'x,y,note\n1,2,ok\n2,3,"5 inch\n3,4,ok\n4,5,ok\n',
            {"features": ["x"]},
            f"data/raw/t.csv, line 3: a quote does not open or close a whole cell. {QUOTES}",
        ),
    ],
)
def test_a_faulty_text_table_is_refused_with_file_row_column_and_cure(
    raw, refusal, content, prepare, sentence
):
    raw("t.csv", content)
    assert refusal("t.csv", **prepare) == sentence


def test_a_missing_file_is_refused(refusal):
    assert refusal("none.csv") == (
        "There is no file data/raw/none.csv. Put the table there, or correct its name."
    )


def test_the_row_of_a_fault_is_a_spreadsheets_in_any_batch(raw, refusal):
    rows = 300_000 * "a,1.25,2.5\n"
    raw("t.csv", f'name,x,y\n"two\nlines",1,2\n{rows}a,oops,1\n')
    assert refusal("t.csv", features=["x"]).startswith(
        'data/raw/t.csv, row 300003, column `x`: not a number: "oops".'
    )


def test_a_faulty_parquet_table_is_refused(raw, refusal):
    raw("t.parquet", "x,y\n1,2\n")
    assert refusal("t.parquet").startswith("data/raw/t.parquet is damaged: Parquet magic bytes")
    for cell in (dt.datetime(2024, 1, 31, tzinfo=dt.UTC), dt.date(2024, 1, 31), [1]):
        pq.write_table(pa.table({"s": [cell], "y": [1.0]}), raw("t.parquet", ""))
        assert re.fullmatch(
            "data/raw/t.parquet, column `s`: cells of the type .* are neither numbers nor text."
            " Correct the column, or list it in `prepare.exclude`.",
            refusal("t.parquet"),
        )
    x = pa.array([1.0, float("inf"), None])
    pq.write_table(pa.table({"x": x, "y": [1.0, 2.0, 3.0]}), raw("t.parquet", ""))
    assert refusal("t.parquet") == (
        'data/raw/t.parquet, row 2, column `x`: missing or not finite: "inf" (and 1 more cell of'
        f" this column). {CELL}"
    )


def test_a_parquet_file_damaged_inside_is_refused(raw, refusal):
    path = raw("t.parquet", "")
    pq.write_table(pa.table({"x": np.arange(1e5), "y": np.arange(1e5)}), path)
    content = bytearray(path.read_bytes())
    content[10:200] = bytes(190)
    path.write_bytes(content)
    assert refusal("t.parquet").startswith("data/raw/t.parquet is damaged: ")


@pytest.mark.parametrize("padding", range(14))
def test_line_breaks_in_a_quoted_cell_make_no_rows_even_where_a_batch_ends(raw, read, padding):
    raw("t.csv", f"x,y,t\n0,0,{'p' * padding}\n" + 320_000 * '1,2,"a\n5,7,b"\n')
    _, rows = read("t.csv", features=["x"])
    assert rows.shape == (320_001, 2)
    assert (rows[1:] == [1, 2]).all()


@pytest.mark.parametrize("precision_and_scale", [(20, 1), (38, 10), (38, 30), (38, 0)])
def test_decimals_of_parquet_are_the_nearest_doubles(raw, read, precision_and_scale):
    precision, scale = precision_and_scale
    rng = np.random.default_rng(0)
    digits = [int(n) for n in rng.integers(-(10**7), 10**7, 2000)]
    values = [decimal.Decimal(n).scaleb(-min(scale, 5)) for n in digits]
    column = pa.array(values, pa.decimal128(precision, scale))
    pq.write_table(pa.table({"x": column, "y": column}), raw("t.parquet", ""))
    assert read("t.parquet")[1][:, 0].tolist() == [float(value) for value in values]


def test_markers_are_trimmed_as_cells_are(raw, read):
    raw("t.csv", "x,y\n NA,1\n2,2\n")
    assert np.isnan(read("t.csv", missing="drop", missing_values=[" NA "])[1][0, 0])


FAULTY_FOLDERS = [
    ({}, "data/raw/t holds files of no format. Put files of one format there."),
    (
        {"a.csv": "x,y\n1,2\n", "b.tsv": "x\ty\n1\t2\n"},
        "data/raw/t holds files of .csv, .tsv. Put files of one format there.",
    ),
    (
        {"a.csv": "x,y\n1,2\n", "b.csv": "x,z\n1,2\n"},
        "data/raw/t/b.csv has other columns than data/raw/t/a.csv: `y`, `z`. Give all files the"
        " same columns.",
    ),
    (
        {"a.txt": "x,y\n1,2\n"},
        "data/raw/t/a.txt is not a table. Save it as .csv, .tsv (also .gz or .zst) or .parquet. In"
        ' Excel, save it as "CSV UTF-8".',
    ),
    (
        {"a.csv": "x,y\n1,2\n", "b.csv": "x,y\n1,2\n1,oops\n"},
        'data/raw/t/b.csv, row 3, column `y`: not a number: "oops". List it in'
        " `prepare.missing_values`, and set `prepare.missing` to drop or fill.",
    ),
    (
        {"a.csv": "x,y\n1,2\n", "b.csv": "x, x,y\n1,2,3\n"},
        "data/raw/t/b.csv: more than one column `x`. Give each its own name.",
    ),
]


@pytest.mark.parametrize(("files", "sentence"), FAULTY_FOLDERS)
def test_a_faulty_folder_is_refused(raw, refusal, files, sentence):
    (RAW / "t").mkdir()
    for name, content in files.items():
        raw(f"t/{name}", content)
    assert refusal("t") == sentence


def test_a_folder_is_read_in_the_order_of_its_names_without_hidden_files(raw, read):
    (RAW / "t").mkdir()
    raw("t/b.csv", "y,x\n4,3\n")
    raw("t/a.csv", "x,y\n1,2\n")
    raw("t/.gitignore", "*")
    raw("t/_SUCCESS", "")
    assert read("t")[1].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_compressed_table_gives_the_same_rows(raw, read, refusal, compression):
    rows = "".join(f"{i},{i / 7!r}\n" for i in range(200_000))
    raw("t.csv", f"x,y\n{rows}")
    expected = read("t.csv")[1]
    codec = pa.Codec({"gz": "gzip", "zst": "zstd"}[compression])
    name = f"t.csv.{compression}"
    path = raw(name, codec.compress(f"x,y\n{rows}".encode(), asbytes=True))
    assert read(name)[1].tobytes() == expected.tobytes()
    raw(name, codec.compress(f"x,y\n{rows}1,oops\n".encode(), asbytes=True))
    assert refusal(name).startswith(f"data/raw/{name}, row 200002, column `y`: not a number")
    path.write_bytes(path.read_bytes()[:5000])
    assert refusal(name).startswith(f"data/raw/{name} is damaged: ")
    path.write_bytes(b"x,y\n1,2\n")
    assert refusal(name).startswith(f"data/raw/{name} is damaged: ")


def test_a_row_that_is_too_long_is_refused(raw, refusal):
    raw("t.csv", "x,y,note\n" + 10 * "1,2,a\n" + f"1,2,{'a' * 3_000_000}\n")
    assert refusal("t.csv").startswith("data/raw/t.csv is damaged: straddling object")


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
def test_an_index_without_a_name_is_not_learned_from(raw, read, refusal, name):
    raw("t.csv", f"x,{name},y\n1,0,2\n")
    assert refusal("t.csv") == (
        f"data/raw/t.csv: column 2, `{name}`, is an index that pandas has written. List"
        f' "{name}" in `prepare.exclude`, or name the columns to learn from in `prepare.features`.'
    )
    assert read("t.csv", exclude=[name])[1].tolist() == [[1, 2]]
    assert read("t.csv", exclude=[], features=["x"])[1].tolist() == [[1, 2]]


def test_an_index_with_a_name_is_not_learned_from(raw, refusal):
    table = pd.DataFrame({"x": [1.0], "y": [2.0], "sample": [3], "rep": [4]})
    table.set_index(["sample", "rep"]).to_parquet(raw("t.parquet", ""))
    faults = refusal("t.parquet").splitlines()
    assert len(faults) == 2
    assert faults[0].startswith(
        "data/raw/t.parquet: column 3, `sample`, is an index that pandas has written."
    )


def test_all_columns_but_the_excluded_ones_are_learned_from(raw, read, refusal):
    raw("t.csv", "age,note,weight,y\n1,a,2,3\n")
    assert names(read("t.csv", exclude=["note"])[0]) == ["age", "weight", "y"]
    assert refusal("t.csv", exclude=["aeg"]).startswith(
        "data/raw/t.csv: no column `aeg`. Did you mean `age`? Correct the names in params.yaml;"
    )


def test_text_of_other_encodings_in_an_unused_column_does_no_harm(raw, read):
    for before, after in ((0, 9), (9, 0), (99_999, 0)):
        good = b"1,abc,2\n"
        raw("t.csv", b"x,n,y\n" + before * good + b"7,gr\xfcn,14\n" + after * good)
        assert len(read("t.csv", features=["x"])[1]) == before + after + 1


def test_an_empty_line_is_an_empty_cell_only_in_a_table_of_one_column(raw, read):
    raw("t.csv", "x\n0.1\n\n0.3\n")
    [batch] = Table(RAW / "t.csv").batches(["x"])
    assert batch.columns[0].to_pylist() == ["0.1", "", "0.3"]
    raw("t.csv", "x,y\n1,2\n\n3,4\n")
    assert len(read("t.csv")[1]) == 2


def test_a_column_of_nulls_is_missing_and_a_table_without_columns_is_refused(raw, refusal):
    pq.write_table(pa.table({"x": pa.nulls(2), "y": [1, 2]}), raw("t.parquet", ""))
    assert refusal("t.parquet").startswith("data/raw/t.parquet, row 1, column `x`: empty cell (")
    pq.write_table(pa.table({}), raw("t.parquet", ""))
    assert refusal("t.parquet") == f"data/raw/t.parquet: no column `y`. {CHOICE} ."


def test_thousands_of_columns_are_read(raw, read):
    table = np.random.default_rng(0).standard_normal((300, 3000))
    features = [f"channel {i} (mV)" for i in range(2999)]
    pd.DataFrame(table, columns=[*features, "y"]).to_csv(raw("t.csv", ""), index=False)
    columns, rows = read("t.csv")
    assert names(columns) == [*features, "y"]
    assert rows.tobytes() == table.tobytes()


def test_every_flipped_bit_of_a_parquet_file_is_read_or_refused(raw, change):
    change({"prepare.missing": "drop"})
    path = raw("t.parquet", "")
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": [3, 4]}), path)
    content, params = path.read_bytes(), load_params().prepare
    for position in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        with suppress(UserError):
            table = Table(RAW / "t.parquet")
            list(read_rows(table, choose_columns(table, params), params))
