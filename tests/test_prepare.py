import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stages import prepare
from stages.base.errors import UserError
from stages.base.files import PREPARE_PARAMS, PREPARED, RAW, STATISTICS


def splits():
    return [
        pd.read_parquet(PREPARED / f"{name}.parquet") for name in ("train", "validation", "test")
    ]


def refusal():
    with pytest.raises(UserError) as error:
        prepare.main()
    return str(error.value)


def test_the_default_line_is_split_into_three(workspace, capsys):
    prepare.main()
    assert capsys.readouterr().out == (
        "prepare: 1000 rows from line: 700 train, 100 validation, 200 test\n"
    )
    rows = pd.concat(splits()).sort_values("x")
    assert [len(split) for split in splits()] == [700, 100, 200]
    assert rows["x"].tolist() == [np.float32(i / 1000) for i in range(1000)]
    noise = rows["y"].astype(float) - 0.7 * rows["x"].astype(float) - 0.3
    assert 0.045 < noise.std() < 0.055


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics_describe_the_training_rows(change, dtype):
    change({"prepare.dtype": dtype, "prepare.rows": 5000})
    prepare.main()
    training, statistics = splits()[0].astype("float64"), json.loads(STATISTICS.read_text())
    assert statistics["columns"] == ["x", "y"]
    assert statistics["rows"] == {"train": 3500, "validation": 500, "test": 1000}
    for column in ("x", "y"):
        assert statistics["mean"][column] == pytest.approx(training[column].mean(), rel=1e-15)
        deviation = training[column].std(ddof=0)
        assert statistics["standard_deviation"][column] == pytest.approx(deviation, rel=1e-14)
        assert statistics["minimum"][column] == training[column].min()
        assert statistics["maximum"][column] == training[column].max()


def test_a_table_and_its_copy_in_another_format_give_the_same_rows_and_statistics(change, raw):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(70_000, 3)), columns=["a", "y", "b"])
    table.to_csv(raw("t.csv", ""), index=False)
    table.to_csv(raw("t.tsv", ""), index=False, sep="\t")
    table.to_parquet(raw("t.parquet", ""), row_group_size=9999)
    table.to_csv(raw("t.csv.gz", ""), index=False)
    tsv = table.to_csv(index=False, sep="\t").encode()
    raw("t.tsv.zst", pa.Codec("zstd").compress(tsv, asbytes=True))
    (RAW / "csv").mkdir()
    (RAW / "parquet").mkdir()
    for number, rows in enumerate((table[:20_000], table[20_000:60_000], table[60_000:])):
        rows.to_csv(raw(f"csv/{number}.csv", ""), index=False)
        columns = ["y", "b", "a"] if number else ["a", "y", "b"]  # the first file's order counts
        rows[columns].to_parquet(raw(f"parquet/{number}.parquet", ""))
    outputs = set()
    names = ("t.csv", "t.tsv", "t.parquet", "data/raw/t.csv", "t.csv.gz", "t.tsv.zst")
    for name in (*names, "csv", "parquet"):
        change({"prepare.source": name, "prepare.dtype": "float64"})
        prepare.main()
        assert json.loads(PREPARE_PARAMS.read_text())["source"] == name
        paths = sorted({*PREPARED.iterdir()} - {PREPARE_PARAMS})
        outputs.add(b"".join(path.read_bytes() for path in paths))
    assert len(outputs) == 1
    assert pd.concat(splits())["b"].sort_values().tolist() == table["b"].sort_values().tolist()


def test_rows_are_split_in_order_on_request(change):
    change({"prepare.split": "ordered"})
    prepare.main()
    assert (pd.concat(splits())["x"].diff().iloc[1:] > 0).all()


def test_validation_and_test_rows_may_be_absent(change, capsys):
    change({"prepare.source": "norris.csv", "prepare.validation": 0, "prepare.test": 0})
    prepare.main()
    assert [len(split) for split in splits()] == [36, 0, 0]
    assert "36 rows from norris.csv: 36 train, 0 validation, 0 test" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "validation", "test", "sizes"),
    [(1000, 0.1, 0.2, [700, 100, 200]), (36, 0.29, 0.1, [22, 10, 4]), (2, 0, 0.5, [1, 0, 1])],
)
def test_fractions_are_rounded_to_the_nearest_row(change, rows, validation, test, sizes):
    change({"prepare.rows": rows, "prepare.validation": validation, "prepare.test": test})
    prepare.main()
    assert [len(split) for split in splits()] == sizes


def test_rows_with_missing_cells_are_dropped_and_counted(change, raw, capsys):
    raw("t.csv", "x,y\n1,1\n,2\n3,nan\n4,4\n" + "".join(f"{i},{i}\n" for i in range(5, 13)))
    change({"prepare.source": "t.csv", "prepare.missing": "drop", "prepare.validation": 0.2})
    prepare.main()
    assert (
        "10 rows from t.csv, 2 with missing cells dropped (`x` 1, `y` 1): 6 train"
        in capsys.readouterr().out
    )
    assert sorted(pd.concat(splits())["x"]) == [1, *range(4, 13)]


def test_columns_that_are_not_chosen_are_ignored_and_named(change, raw, capsys):
    rows = "".join(f"{i},name {i},{i},{i}\n" for i in range(10))
    raw("t.csv", f"x,name,z,y\n{rows}")
    change({"prepare.source": "t.csv", "prepare.features": ["x"]})
    prepare.main()
    assert capsys.readouterr().out.endswith("2 test; ignored: `name`, `z`\n")


def test_categories_become_features_of_zero_and_one(change, raw, capsys):
    rows = [("USA", 1), ("Japan", 2), ("EU", 3), ("USA", 4)]
    raw("t.csv", "origin,y\n" + "".join(f"{origin},{y}\n" for origin, y in rows))
    change({"prepare.source": "t.csv", "prepare.validation": 0, "prepare.test": 0})
    prepare.main()
    training = splits()[0]
    names = ["origin=EU", "origin=Japan", "origin=USA", "y"]
    assert list(training.columns) == names
    assert training.to_numpy().tolist() == [[0, 0, 1, 1], [0, 1, 0, 2], [1, 0, 0, 3], [0, 0, 1, 4]]
    statistics = json.loads(STATISTICS.read_text())
    assert statistics["categories"] == {"origin": ["EU", "Japan", "USA"]}
    assert statistics["mean"]["origin=USA"] == 0.5


def test_the_line_is_a_table_whose_columns_can_be_chosen(change):
    change({"prepare.target": "x"})
    prepare.main()
    assert list(splits()[0].columns) == ["y", "x"]
    change({"prepare.target": "z"})
    assert refusal().startswith("the line: no column `z`. ")


@pytest.mark.parametrize(
    ("content", "changes", "sentence"),
    [
        (
            "x,y\n",
            {},
            "prepare: 0 rows are too few: no row is left for train, validation, test. Add rows, or"
            " change `prepare.features`, `prepare.validation` or `prepare.test`.",
        ),
        (
            "x,y,z\n1,2,\n3,4,\n",
            {"prepare.missing": "drop"},
            "prepare: 0 rows are too few, 2 with missing cells dropped (`z` 2): no row is left for"
            " train, validation, test. Add rows, or change `prepare.features`, `prepare.validation`"
            " or `prepare.test`.",
        ),
        (
            "x,y\n1,2\n3,4\n5,6\n",
            {},
            "prepare: 3 rows are too few: no row is left for validation. Add rows, or change"
            " `prepare.features`, `prepare.validation` or `prepare.test`.",
        ),
        (
            "x,y\n1,1e39\n3,4\n5,6\n",
            {},
            'data/raw/t.csv, row 2, column `y`: too large for float32: "1e39". Rescale the'
            " column, or set `prepare.dtype` to float64.",
        ),
        (
            "x,y\n1e308,1\n-1e308,4\n5,6\n",
            {"prepare.dtype": "float64", "prepare.validation": 0, "prepare.test": 0},
            "prepare: the numbers of `x` are too large to square. Rescale the column.",
        ),
        (
            "a,intercept,y\n1,1,1\n",
            {},
            "data/raw/t.csv: more than one column or category has the name `intercept`"
            " (metrics/evaluation.json has an `intercept`, too). Rename the column.",
        ),
    ],
)
def test_a_table_that_cannot_be_prepared_is_refused(change, raw, content, changes, sentence):
    raw("t.csv", content)
    change({"prepare.source": "t.csv", **changes})
    assert refusal() == sentence
    assert not PREPARED.exists()
    assert [path.name for path in PREPARED.parent.iterdir()] == ["raw"]


def test_after_a_refusal_the_old_rows_are_as_they_were(change, raw):
    prepare.main()
    before = [path.read_bytes() for path in sorted(PREPARED.iterdir())]
    raw("t.csv", "x,y\n1,oops\n")
    change({"prepare.source": "t.csv"})
    assert "oops" in refusal()
    assert [path.read_bytes() for path in sorted(PREPARED.iterdir())] == before


def test_numbers_too_large_for_float32_are_not_dropped_with_missing_cells(change, raw):
    raw("t.csv", "x,y\n1,1e39\n3,\n5,-1e40\n")
    change({"prepare.source": "t.csv", "prepare.missing": "drop"})
    assert refusal().startswith(
        'data/raw/t.csv, row 2, column `y`: too large for float32: "1e39" (and 1 more cell of'
    )


def test_a_minimum_of_zero_has_no_sign(change, raw):
    raw("zeros.csv", "x,y\n0.0,1\n-0.0,2\n0.0,3\n")
    change({"prepare.source": "zeros.csv", "prepare.validation": 0, "prepare.test": 0})
    prepare.main()
    text = STATISTICS.read_text()
    assert json.loads(text)["minimum"]["x"] == 0.0
    assert "-0.0" not in text
