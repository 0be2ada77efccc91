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
from stages.rows.categories import inputs_of
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


BOTH = (
    'The cells have two meanings: set `prepare.decimal` to ",", or `prepare.thousands` to ",",'
    " whichever is right."
)
CORRECT = (
    "Correct the column, list it in `prepare.categories` if its cells are categories, or list it in"
    " `prepare.exclude`."
)
MARK = "List it in `prepare.missing_values`, and set `prepare.missing` to drop or fill."
DATES = "Dates and times are not understood: list it in `prepare.exclude`."


@pytest.mark.parametrize(
    ("cells", "row", "cell", "cure"),
    [
        (["1", "2", "n/a", "4", "n/a"], 4, "n/a", MARK),
        (["1", "2", "n/a", "4", "-", "5"], 4, "n/a", MARK.replace("it", '"n/a", "-"', 1)),
        (["red", "1", "blue", "red"], 2, "red", CORRECT),
        (["1", "2", "5 kg", "x", "2"], 4, "5 kg", CORRECT),
        (["1", "0", "true", "0"], 4, "true", CORRECT),
        (["2024-01-31", "2024-02-01"], 2, "2024-01-31", DATES),
        (["12:30", "7"], 2, "12:30", DATES),
        (["2024-03-01T08:00:00Z", "2024-03-02T08:00:00Z"], 2, "2024-03-01T08:00:00Z", DATES),
        (["0x10", "16"], 2, "0x10", CORRECT),
        (["35-44", "45-54"], 2, "35-44", CORRECT),
    ],
)
def test_a_column_that_mixes_numbers_and_text_is_refused(raw, refusal, cells, row, cell, cure):
    raw("t.tsv", "a\ty\n" + "".join(f"{cell}\t1\n" for cell in cells))
    expected = f'data/raw/t.tsv, row {row}, column `a`: not a number: "{cell}"'
    sentence = refusal("t.tsv")
    assert sentence.startswith(expected)
    assert sentence.endswith(f". {cure}")


@pytest.mark.parametrize(
    ("cells", "prepare", "cure"),
    [
        (["950", "1,234"], {}, BOTH),
        (["950.5", "1,234"], {}, 'Set `prepare.thousands` to ",".'),
        (["1,234,567", "1,234"], {}, 'Set `prepare.thousands` to ",".'),
        (["1,5", "1,234"], {}, 'Set `prepare.decimal` to ",".'),
        (["0,123"], {}, 'Set `prepare.decimal` to ",".'),
        (["1 234", "5.5"], {}, 'Set `prepare.thousands` to " ".'),
        (["1\u202f234", "5.5"], {}, 'Set `prepare.thousands` to " ".'),
        (["1.234,56"], {}, 'Set `prepare.decimal` to "," and `prepare.thousands` to ".".'),
        (["1,234", "n/a", "2.5"], {}, f'Set `prepare.thousands` to ",". {MARK}'),
        (["1.234,56"], {"decimal": ","}, 'Set `prepare.thousands` to ".".'),
        (["1.5", "2,5"], {"decimal": ","}, CORRECT),
        (["1.5"], {"decimal": ","}, CORRECT),
        (["1,23", "1.5"], {}, CORRECT),
        (["1,234", "12,34"], {"thousands": ","}, CORRECT),
    ],
)
def test_a_sign_is_named_as_a_cure_only_if_all_cells_agree(raw, refusal, cells, prepare, cure):
    raw("t.tsv", "a\ty\n" + "".join(f"{cell}\t1\n" for cell in cells))
    assert refusal("t.tsv", **prepare).endswith(
        f'. {cure.replace("it in", """"n/a" in""", 1) if "n/a" in cells else cure}'
    )


@pytest.mark.parametrize(
    ("thousands", "decimal", "cells"),
    [
        (",", ".", ["1,234", "-12,345.5", "7.25", "1234567"]),
        (".", ",", ["1.234", "-12.345,5", "7,25", "1234567"]),
        (" ", ",", ["1 234", "-12\u00a0345,5", "7,25", "1234567"]),
        ("'", ".", ["1'234", "-12\u2019345.5", "7.25", "1234567"]),
    ],
)
def test_groups_of_three_digits_are_numbers(raw, read, thousands, decimal, cells):
    raw("t.csv", "x;y\n" + "".join(f"{cell};1\n" for cell in cells))
    _, rows = read("t.csv", thousands=thousands, decimal=decimal, delimiter=";")
    assert rows[:, 0].tolist() == [1234, -12345.5, 7.25, 1234567]


@pytest.mark.parametrize(
    "cell", ["1,23", "12,34,567", "1234,567", "0,123", ",123", "1.5,000", "1,234e3"]
)
def test_other_groups_than_of_three_digits_are_refused(raw, refusal, cell):
    raw("t.tsv", f"x\ty\n5\t1\n{cell}\t1\n")
    assert f'row 3, column `x`: not a number: "{cell}"' in refusal("t.tsv", thousands=",")


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary", "large dictionary"])
def test_text_of_parquet_is_categories_even_if_it_looks_like_numbers(raw, opened, kind):
    codes = pa.array(["02139", "10115", "02139"])
    if "dictionary" in kind:
        codes = codes.cast(
            pa.large_string() if "large" in kind else pa.string()
        ).dictionary_encode()
    else:
        codes = codes.cast(getattr(pa, kind)())
    pq.write_table(pa.table({"zip": codes, "y": [1, 2, 3]}), raw("t.parquet", ""))
    categories, rows = opened("t.parquet")
    assert categories == {"zip": ["02139", "10115"]}
    assert rows[:, 0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_declared_categories_may_look_like_numbers_and_have_markers(raw, opened, suffix):
    raw("t.csv", "zip,y\n12,1\n-999,2\n7,3\n12,4\n")
    table = pa.table({"zip": [12, -999, 7, 12], "y": [1, 2, 3, 4]})
    pq.write_table(table, raw("t.parquet", ""))
    prepare = {"categories": ["zip"], "missing": "drop", "missing_values": [-999]}
    categories, rows = opened(f"t.{suffix}", **prepare)
    assert categories == {"zip": ["12", "7"]}
    assert rows.tolist() == [[0, 1], [1, 3], [0, 4]]


def test_all_faults_of_all_columns_are_told_at_once(raw, refusal):
    table = {
        "when": pa.array([0, 1], pa.date32()),
        "x": pa.array([1.0, None]),
        "kind": [None, "a"],
        "y": [None, "b"],
    }
    pq.write_table(pa.table(table), raw("t.parquet", ""))
    when, x, kind, y = refusal("t.parquet").split("\n")
    assert when.endswith(
        "neither numbers nor text. Correct the column, or list it in `prepare.exclude`."
    )
    assert "row 2, column `x`: empty cell. Set `prepare.missing` to drop or fill" in x
    assert "row 1, column `kind`: empty cell. " in kind
    assert 'row 2, column `y`: not a number: "b". ' in y
    assert y.endswith("Missing cells: 1; set `prepare.missing` to drop or fill.")


@pytest.mark.parametrize(
    ("cells", "is_coarse"),
    [
        ([1700000000 + i for i in range(200)], True),
        ([1700000000 + 0.3 * i for i in range(200)], True),
        ([10**9 + 1e-3 * i for i in range(9)], True),
        ([16000000 + i for i in range(9)], False),
        ([0.1] * 9, False),
        ([1e9 + 1e6 * i / 3 for i in range(99)], False),
    ],
)
def test_a_column_that_float32_cannot_resolve_is_named(raw, read, refusal, cells, is_coarse):
    raw("t.csv", "t,y\n" + "".join(f"{cell!r},1\n" for cell in cells))
    assert len(read("t.csv")[1]) == len(cells)
    if not is_coarse:
        assert len(read("t.csv", dtype="float32")[1]) == len(cells)
        return
    assert refusal("t.csv", dtype="float32") == (
        f"data/raw/t.csv, column `t`: float32 cannot resolve the steps between {float(cells[0])!r}"
        f" and {float(cells[-1])!r}. Set `prepare.dtype` to float64."
    )


def test_signs_are_no_cure_for_text_of_parquet(raw, refusal):
    pq.write_table(pa.table({"x": [1, 2], "y": ["1,5", "2.5"]}), raw("t.parquet", ""))
    assert refusal("t.parquet").endswith(
        'not a number: "1,5" (and 1 more cell of this column). Its type is text: store numbers, or'
        " choose another `prepare.target`."
    )


def test_text_with_many_values_is_refused(raw, refusal):
    raw("t.csv", "a,y\n" + "".join(f"name {i},{i}\n" for i in range(101)))
    assert refusal("t.csv") == (
        "data/raw/t.csv, column `a`: text with more than 100 different values. Correct the"
        " column, or list it in `prepare.exclude`."
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
        require_names("t", ["a=b", *inputs_of("a", {"a": ["b", "c"]}), "y"])
    assert str(error.value).startswith("t: more than one column or category has the name `a=b`")
