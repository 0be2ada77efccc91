import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages import prepare
from stages.base.errors import UserError
from stages.base.files import RAW
from stages.base.params import load_params
from stages.prepare import cell_format
from stages.tables.cells import CheckedCells, choose_columns, require_names
from stages.tables.table import Table

CARS = "origin,fast,x,y\nUSA,true,1,10\nJapan,false,2,20\n EU ,True,3,30\nUSA,FALSE,4,40\n"


@pytest.fixture
def opened(change):
    """Read a table to its end: its checked cells, and its rows after ``recode``."""

    def open_cells(name, **prepare):
        change({f"prepare.{key}": value for key, value in prepare.items()})
        params = load_params().prepare
        table = Table(RAW / name, params.delimiter)
        columns = choose_columns(name, table.names, params.features, params.target)
        cells = CheckedCells(table, columns, cell_format(params))
        rows = np.concatenate([*cells.batches()])
        rows = rows[np.isfinite(rows).all(axis=1)]  # prepare drops the other rows
        cells.recode(rows)
        return cells, rows

    return open_cells


def test_text_columns_are_categories_in_sorted_order_and_true_and_false_are_one_and_zero(
    raw, opened
):
    raw("t.csv", CARS)
    cells, rows = opened("t.csv")
    assert cells.categories() == {"origin": ["EU", "Japan", "USA"]}
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
    cells, rows = opened("t.parquet")
    assert cells.categories() == expected[0].categories()
    assert rows.tolist() == expected[1].tolist()


def test_categories_that_appear_late_and_in_many_batches_are_found(raw, opened):
    kinds = np.array([f"kind {i:03}" for i in range(100)])
    chosen = np.sort(np.random.default_rng(0).integers(0, 100, 400_000))[::-1]
    table = pd.DataFrame({"kind": kinds[chosen], "y": np.arange(400_000)})
    table.to_csv(raw("t.csv", ""), index=False)
    cells, rows = opened("t.csv")
    assert cells.categories() == {"kind": kinds.tolist()}
    assert rows[:, 0].tolist() == chosen.tolist()


def test_a_missing_category_is_a_missing_cell(raw, change, refusal, capsys):
    raw("t.csv", "origin,y\nUSA,1\n,2\nNA,3\nEU,4\n")
    assert refusal("t.csv", missing_values=["NA"]).startswith(
        "data/raw/t.csv, line 3, column `origin`: empty cell."
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
    checked, rows = opened("t.csv", missing="drop", missing_values=[marker])
    assert checked.categories() == {"c": ["A", "B"]}
    assert rows[:, 3].tolist() == [i + 2 for i, cell in enumerate(cells) if cell != "-999"]


LIST = "or list it in `prepare.missing_values` and set `prepare.missing` to drop."
TEXT = f"Correct the file, change `prepare.features`, {LIST}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "a,y\n1,1\nred,2\n3,3\nred,4\nblue,5\n",
            f'data/raw/t.csv, line 3, column `a`: not a number: "red". {TEXT}\n'
            f'data/raw/t.csv, line 6, column `a`: not a number: "blue". {TEXT}\n'
            "… and 1 more such cells.",
        ),
        (
            "a,y\ntrue,1\n2,2\n",
            f'data/raw/t.csv, line 2, column `a`: not a number: "true". {TEXT}',
        ),
        (
            "a,y\n" + "".join(f"name {i},{i}\n" for i in range(101)),
            "data/raw/t.csv, column `a`: text with more than 100 different values. Choose other"
            " `prepare.features`.",
        ),
        (
            "a,y\n" + "".join(f"name {i},{i}\n" for i in range(150)) + "7,7\n",
            f'data/raw/t.csv, line 2, column `a`: not a number: "name 0". {TEXT}\n'
            f'data/raw/t.csv, line 3, column `a`: not a number: "name 1". {TEXT}\n'
            f'data/raw/t.csv, line 4, column `a`: not a number: "name 2". {TEXT}\n'
            "… and 147 more such cells.",
        ),
    ],
)
def test_text_that_is_not_a_category_is_refused(raw, refusal, content, sentence):
    raw("t.csv", content)
    assert refusal("t.csv") == sentence


def test_a_target_of_categories_is_refused_and_one_of_booleans_is_not(raw, refusal, read):
    raw("t.csv", "x,y\n1,good\n2,bad\n")
    assert (
        '"good". Correct the file, change `prepare.target` (numbers, or true and false)'
        in refusal("t.csv")
    )
    raw("t.csv", "x,y\n1,true\n2,false\n")
    assert len(read("t.csv")[1]) == 2


def test_the_first_text_is_named_even_if_the_first_number_comes_late(raw, refusal):
    rows = 500_000 * "red,1\n"
    raw("t.csv", f"a,y\n{rows}1,1\n")
    assert refusal("t.csv") == (
        f'data/raw/t.csv, line 2, column `a`: not a number: "red". {TEXT}\n'
        "… and 499999 more such cells."
    )


def test_a_column_and_a_category_must_not_have_the_same_name():
    with pytest.raises(UserError) as error:
        require_names("t", ["a=b", "a", "y"], {"a": ["b", "c"]})
    assert str(error.value) == (
        "t: more than one column or category has the name `a=b`. Rename the column."
    )
