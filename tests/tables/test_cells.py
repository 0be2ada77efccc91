import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import prepare
from stages.base.errors import UserError
from stages.tables.cells import NUMBER
from stages.tables.columns import require_names

CARS = "origin,fast,x,y\nUSA,true,1,10\nJapan,false,2,20\n EU ,True,3,30\nUSA,FALSE,4,40\n"


@pytest.fixture
def opened(read):
    """Read a table to its end: its categories, and its rows after ``recode``."""

    def open_columns(name, **prepare):
        columns, rows = read(name, **prepare)
        rows = rows[np.isfinite(rows).all(axis=1)]  # prepare drops the other rows
        for column, cells in zip(columns, rows.T, strict=True):
            column.recode(cells)
        categories = {column.name: column.categories() for column in columns}
        return {name: found for name, found in categories.items() if found}, rows

    return open_columns


@given(st.text("0123456789.+-eEnaifty()_", max_size=9))
def test_the_pattern_of_numbers_is_what_arrow_casts(text):
    cell = pa.array([text], pa.string())
    try:
        is_castable = cell.cast(pa.float64()).null_count == 0
    except pa.ArrowInvalid:
        is_castable = False
    assert pc.match_substring_regex(cell, NUMBER).to_pylist() == [is_castable]


def test_text_columns_are_categories_in_sorted_order_and_true_and_false_are_one_and_zero(
    raw, opened
):
    raw("t.csv", CARS)
    categories, rows = opened("t.csv")
    assert categories == {"origin": ["EU", "Japan", "USA"]}
    assert rows.tolist() == [[2, 1, 1, 10], [1, 0, 2, 20], [0, 1, 3, 30], [2, 0, 4, 40]]


@pytest.mark.parametrize("kind", ["text", "large text", "dictionary"])
def test_text_columns_of_parquet_are_those_of_csv(raw, opened, kind):
    raw("t.csv", CARS)
    expected = opened("t.csv")
    origin = pa.array(["USA", "Japan", "EU", "USA"])
    if kind == "large text":
        origin = origin.cast(pa.large_string())
    elif kind == "dictionary":
        origin = origin.dictionary_encode()
    fast = pa.array([True, False, True, False])
    table = pa.table({"origin": origin, "fast": fast, "x": [1, 2, 3, 4], "y": [10, 20, 30, 40]})
    pq.write_table(table, raw("t.parquet", ""))
    categories, rows = opened("t.parquet")
    assert categories == expected[0]
    assert rows.tolist() == expected[1].tolist()


def test_categories_that_appear_late_and_in_many_batches_are_found(raw, opened):
    kinds = np.array([f"kind {i:03}" for i in range(100)])
    chosen = np.sort(np.random.default_rng(0).integers(0, 100, 400_000))[::-1]
    table = pd.DataFrame({"kind": kinds[chosen], "y": np.arange(400_000)})
    table.to_csv(raw("t.csv", ""), index=False)
    categories, rows = opened("t.csv")
    assert categories == {"kind": kinds.tolist()}
    assert rows[:, 0].tolist() == chosen.tolist()


def test_a_missing_category_is_a_missing_cell(raw, change, refusal, capsys):
    raw("t.csv", "origin,y\nUSA,1\n,2\nNA,3\nEU,4\n")
    assert refusal("t.csv", missing_values=["NA"]).startswith(
        "data/raw/t.csv, row 3, column `origin`: empty cell (and 1 more cell of this column)."
    )
    params = {"prepare.missing": "drop", "prepare.missing_values": ["NA"]}
    change({"prepare.source": "t.csv", "prepare.validation": 0, "prepare.test": 0, **params})
    prepare.main()
    assert "2 with missing cells dropped (`origin` 2)" in capsys.readouterr().out
    assert pd.read_parquet("data/prepared/train.parquet").to_numpy().tolist() == [
        [0, 1, 1],
        [1, 0, 4],
    ]


@pytest.mark.parametrize("marker", [0, 1, -999])
def test_a_number_that_marks_missing_cells_is_a_number_of_the_file(raw, opened, marker):
    cells = ["A", "B", "-999", "A"] if marker == -999 else ["A", "B", "A", "B"]
    raw("t.csv", "c,b,x,y\n" + "".join(f"{c},true,5,{i + 2}\n" for i, c in enumerate(cells)))
    categories, rows = opened("t.csv", missing="drop", missing_values=[marker])
    assert categories == {"c": ["A", "B"]}
    assert rows[:, 3].tolist() == [i + 2 for i, cell in enumerate(cells) if cell != "-999"]


SIGN = '(the decimal sign is ".", see `prepare.decimal`; a category needs a letter)'
CORRECT = f"Correct the file {SIGN}, or choose other columns."
MARK = "List it in `prepare.missing_values`, or correct the file."


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        (["1", "2", "n/a", "4", "n/a"], f'row 4, column `a`: not a number: "n/a"{{}} {MARK}'),
        (["red", "1", "blue", "red"], f'row 2, column `a`: not a number: "red"{{}} {CORRECT}'),
        (["1", "2", "5 kg", "x", "2"], f'row 4, column `a`: not a number: "5 kg"{{}} {CORRECT}'),
        (["1", "0", "true", "0"], f'row 4, column `a`: not a number: "true". {CORRECT}'),
        (["950", "1,234", "2"], f'row 3, column `a`: not a number: "1,234". {CORRECT}'),
        (["1,5", "2,5"], f'row 2, column `a`: not a number: "1,5"{{}} {CORRECT}'),
        (["2024-01-31"], f'row 2, column `a`: not a number: "2024-01-31". {CORRECT}'),
        (["0x10", "16"], f'row 2, column `a`: not a number: "0x10". {CORRECT}'),
        (["1,5E+03"], f'row 2, column `a`: not a number: "1,5E+03". {CORRECT}'),
    ],
)
def test_a_column_that_mixes_numbers_and_text_is_refused(raw, refusal, cells, sentence):
    raw("t.tsv", "a\ty\n" + "".join(f"{cell}\t1\n" for cell in cells))
    expected = sentence.format(" (and 1 more cell of this column).")
    if cells[0] == "red":
        expected = expected.replace("1 more cell ", "2 more cells ")
    assert refusal("t.tsv") == f"data/raw/t.tsv, {expected}"


def test_text_with_many_values_is_refused(raw, refusal):
    raw("t.csv", "a,y\n" + "".join(f"name {i},{i}\n" for i in range(101)))
    assert refusal("t.csv") == (
        "data/raw/t.csv, column `a`: text with more than 100 different values. Choose other"
        " `prepare.features`."
    )


def test_a_target_of_categories_is_refused_and_one_of_booleans_is_not(raw, refusal, read):
    raw("t.csv", "x,y\n1,good\n2,bad\n")
    assert 'row 2, column `y`: not a number: "good"' in refusal("t.csv")
    raw("t.csv", "x,y\n1,true\n2,false\n")
    assert len(read("t.csv")[1]) == 2


def test_the_cells_of_a_column_are_counted_in_all_batches(raw, refusal):
    raw("t.csv", "a,y\n" + 500_000 * "red,1\n" + "1,1\n")
    assert refusal("t.csv").startswith(
        'data/raw/t.csv, row 2, column `a`: not a number: "red" (and 499999 more cells of this'
    )


def test_a_column_and_a_category_must_not_have_the_same_name():
    with pytest.raises(UserError) as error:
        require_names("t", ["a=b", "a", "y"], {"a": ["b", "c"]})
    assert str(error.value).startswith("t: more than one column or category has the name `a=b`")
