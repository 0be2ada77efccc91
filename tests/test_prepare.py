import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages import prepare
from stages.base.errors import UserError
from stages.base.files import PREPARE_PARAMS, PREPARED, RAW, STATISTICS
from tests.conftest import ROOT, command


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
        "prepare: numbers: `x`, `y`\n"
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
    [(1000, 0.1, 0.2, [700, 100, 200]), (36, 0.29, 0.1, [22, 10, 4]), (3, 0, 0.4, [2, 0, 1])],
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
    assert capsys.readouterr().out.endswith("numbers: `x`, `y`; ignored: `name`, `z`\n")


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
    raw("zeros.csv", "x,y\n0.0,1\n-0.0,2\n5.0,3\n")
    change({"prepare.source": "zeros.csv", "prepare.validation": 0, "prepare.test": 0})
    prepare.main()
    text = STATISTICS.read_text()
    assert json.loads(text)["minimum"]["x"] == 0.0
    assert "-0.0" not in text


ALL_TRAIN = {"prepare.source": "t.csv", "prepare.validation": 0, "prepare.test": 0}
LAST_IS_TEST = {**ALL_TRAIN, "prepare.split": "ordered", "prepare.test": 0.2}


def test_what_does_not_vary_in_the_training_rows_is_left_out_and_named(change, raw, capsys):
    cells = ["A", "B", "A", "B", "C"]
    rows = [f"7,{cell},one,{i // 4},{i},{i}\n" for i, cell in enumerate(cells)]
    raw("t.csv", "same,kind,only,late,x,y\n" + "".join(rows))
    change(LAST_IS_TEST)
    prepare.main()
    training, _, test = splits()
    assert [*training.columns] == ["kind=A", "kind=B", "x", "y"]
    assert test.to_numpy().tolist() == [[0, 0, 4, 4]]
    statistics = json.loads(STATISTICS.read_text())
    assert statistics["categories"] == {"kind": ["A", "B"]}
    assert capsys.readouterr().out.endswith(
        "prepare: numbers: `same`, `late`, `x`, `y`; categories: `kind` 3, `only` 1; left out,"
        " constant in the training rows: `same`, `kind=C`, `only=one`, `late`\n"
    )


def test_a_table_without_a_column_that_varies_is_refused(change, raw):
    raw("t.csv", "x,y\n1,1\n1,2\n")
    change(ALL_TRAIN)
    assert refusal().startswith("prepare: no column to learn from varies in the training rows.")


def test_an_input_that_varies_only_in_the_last_of_many_rows_is_kept(change, raw):
    kinds = np.where(np.arange(200_000) == 199_999, "B", "A")
    table = pd.DataFrame({"kind": kinds, "x": 0, "y": range(200_000)})
    table.loc[150_000, "x"] = 1
    table.to_csv(raw("t.csv", ""), index=False)
    change(ALL_TRAIN)
    prepare.main()
    assert [*splits()[0].columns] == ["kind=A", "kind=B", "x", "y"]


NUMBERS = st.none() | st.floats(-1e6, 1e6, width=32)
ROW = st.tuples(NUMBERS, st.sampled_from([None, "A", "B"]), st.sampled_from([None, True, False]))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(
    rows=st.lists(ROW, min_size=4, max_size=30),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_missing_cells_are_filled_from_the_training_rows_alone(change, raw, rows, dtype, seed):
    table = pd.DataFrame(rows, columns=["x", "kind", "ok"])
    table["row"] = table["y"] = np.arange(len(rows)) / 4
    text = table.to_csv(index=False).replace("True", "true").replace("False", "false")
    raw("t.csv", text)
    change({**ALL_TRAIN, "prepare.missing": "fill", "prepare.dtype": dtype})
    change({"prepare.test": 0.3, "prepare.seed": seed})
    prepare.main()
    training, _, test = splits()
    prepared = pd.concat([training, test]).sort_values("row").reset_index()
    is_training = prepared["row"].isin(training["row"]).to_numpy()
    statistics = json.loads(STATISTICS.read_text())
    for name in ("x", "ok"):
        cells = table[name].astype(dtype).to_numpy()
        known = cells[is_training & ~np.isnan(cells)]
        if len({*known}) < 2:
            assert name not in prepared
            continue
        mean = known.astype(float).mean()
        scale = float(np.abs(known).max())
        assert statistics["fill"][name] == pytest.approx(mean, abs=1e-14 * scale)
        expected = np.where(np.isnan(cells), np.array(statistics["fill"][name], dtype), cells)
        assert prepared[name].tolist() == expected.tolist()
    kinds = table["kind"].fillna("")
    met = sorted({*kinds[is_training]})
    for kind in met if len(met) > 1 else []:
        assert prepared[f"kind={kind}"].tolist() == (kinds == kind).astype(int).tolist()
    assert statistics["categories"] == ({"kind": met} if len(met) > 1 else {})
    counts = table.isna().sum()
    kept = [*prepared, *statistics["categories"]]
    assert statistics["filled"] == {name: n for name, n in counts.items() if n and name in kept}


def test_a_row_without_a_target_is_left_out_when_cells_are_filled(change, raw, capsys):
    raw("t.csv", "x,y\n1,1\n,2\n3,\ninf,4\n")
    change({**ALL_TRAIN, "prepare.missing": "fill", "prepare.split": "ordered"})
    change({"prepare.source": "t.csv"})
    raw("t.csv", "x,y\n1,1\n,2\n3,\ninf,4\n5,5\n")
    prepare.main()
    assert splits()[0].to_numpy().tolist() == [[1, 1], [3, 2], [3, 4], [5, 5]]
    assert (
        "4 rows from t.csv, 1 with missing cells dropped (`y` 1), missing cells filled (`x` 2): 4"
        in capsys.readouterr().out
    )


def test_threads_change_no_bit_of_what_is_filled(change, raw, use_threads):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(200_000, 3)), columns=["a", "b", "y"])
    table = table.mask(random.random(table.shape) < 0.1)
    table.to_csv(raw("t.csv", ""), index=False)
    change({"prepare.source": "t.csv", "prepare.missing": "fill"})
    outputs = set()
    for num_threads in (1, 3):
        use_threads(num_threads)
        prepare.main()
        outputs.add(b"".join(path.read_bytes() for path in sorted(PREPARED.iterdir())))
    assert len(outputs) == 1


def test_a_linked_folder_and_a_nested_dvc_project_are_refused(change, raw, tmp_path):
    for name in ("disk", "data/raw/nested"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text("x,y\n1,2\n2,3\n3,4\n")
    (RAW / "link").symlink_to(tmp_path / "disk")
    (RAW / "nested/.dvc").mkdir()
    for source in ("link", "link/t.csv", "nested/t.csv"):
        change({**ALL_TRAIN, "prepare.source": source})
        assert refusal().startswith(f"data/raw/{source.split('/')[0]} is a link, or a DVC project")
    (RAW / "t.csv").symlink_to(tmp_path / "disk/t.csv")  # DVC hashes what the file holds
    change({"prepare.source": "t.csv"})
    prepare.main()


def test_a_good_run_writes_nothing_to_standard_error(change, raw):
    table = pd.DataFrame({"x": range(9), "zip": range(9), "kind": list("ABABABABA"), "y": range(9)})
    table.loc[3, "x"] = -999
    table.to_csv(raw("t.csv", ""), index=False)
    table.astype({"x": "float32"}).to_parquet(raw("t.parquet", ""))
    changes = {"prepare.missing": "fill", "prepare.missing_values": [-999, "NA"]}
    for source in ("t.csv", "t.parquet"):
        change({**ALL_TRAIN, **changes, "prepare.categories": ["zip"], "prepare.source": source})
        words = [sys.executable, "-W", "always", "-m", "stages.prepare"]
        result = command(Path(), *words, environment={"PYTHONPATH": str(ROOT)})
        assert (result.returncode, result.stderr) == (0, "")
