"""Predictions need only a release."""

import datetime as dt
import io
import shutil
import sys
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stages import evaluate, predict, prepare, save, train
from stages.base.errors import UserError
from stages.base.files import RELEASE
from stages.model.model import Model
from tests.conftest import ROOT, command

ORDERED = {
    "prepare.source": "t.csv", "prepare.split": "ordered", "train.standardize": False,
    "train.lr": 1e-4, "save.onnx": False,
}  # fmt: skip
CARS = "origin,fast,weight,y\n" + "".join(
    f"{('USA', 'Japan', 'EU')[i % 3]},{('true', 'false')[i % 2]},{i / 7},{i % 5}\n"
    for i in range(60)
)


def release(change, changes):
    change({"prepare.validation": 0, "prepare.test": 0, "train.epochs": 5, **changes})
    for stage in (prepare, train, evaluate, save):
        stage.main()


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """The folder of the releases that several tests use."""
    return tmp_path_factory.mktemp("releases")


def released_once(kept, change, changes):
    """Make a release, or copy it from the folder ``kept`` if an earlier test has made it."""
    if kept.exists():
        shutil.copytree(kept, RELEASE)
    else:
        release(change, changes)
        shutil.copytree(RELEASE, kept)
    return Model.load(RELEASE / "model.safetensors")


@pytest.fixture
def line(change, releases):
    return released_once(releases / "line", change, {"save.onnx": False})


@pytest.fixture
def cars(change, raw, releases):
    raw("t.csv", CARS)
    changes = {"prepare.source": "t.csv", "train.hidden": [4], "save.onnx": False}
    return released_once(releases / "cars", change, changes)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Predict for a table and read the output."""

    def predictions(table, *options, output="out.csv"):
        path = tmp_path / output
        arguments = ["predict", str(RELEASE), str(table), "--output", str(path), *options]
        monkeypatch.setattr(sys, "argv", arguments)
        predict.main()
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)

    return predictions


@pytest.fixture
def refused(run):
    def sentence(table, *options):
        with pytest.raises(UserError) as error:
            run(table, *options)
        return str(error.value)

    return sentence


def test_the_last_column_holds_the_predictions_of_the_model(line, run, tmp_path):
    table = pd.DataFrame({"name": ["a,b", 'say "c"', ""], "x": [0.25, 0.5, 0.75], "y": [1, 2, 3]})
    table.to_csv(tmp_path / "new.csv", index=False)
    output = run(tmp_path / "new.csv")
    assert output.columns.tolist() == ["name", "x", "y", "y_predicted"]
    assert output["name"].tolist()[:2] == ["a,b", 'say "c"']
    inputs = torch.tensor([[0.25], [0.5], [0.75], *[[0.0]] * 13])  # a whole group of rows
    with torch.inference_mode():
        expected = line(inputs)[:3, 0].tolist()
    assert output["y_predicted"].astype("float32").tolist() == expected


@pytest.mark.parametrize("output", ["out.csv", "out.tsv", "out.parquet"])
def test_every_format_gives_the_same_predictions(cars, run, tmp_path, output):
    table = pd.read_csv(io.StringIO(CARS))[["y", "weight", "origin", "fast"]]
    expected = run(save_as(table, tmp_path / "new.csv"))
    for name in ("new.tsv", "new.csv.gz", "new.parquet", "folder"):
        written = run(save_as(table, tmp_path / name), output=output)
        if output == "out.tsv":
            written = pd.read_csv(tmp_path / output, sep="\t")
        predictions = written["y_predicted"].astype("float32").tolist()
        assert predictions == expected["y_predicted"].astype("float32").tolist()


def save_as(table, path):
    if path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == "":
        path.mkdir()
        table[:20].to_csv(path / "1.csv", index=False)
        table[20:].to_csv(path / "2.csv", index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def test_a_rows_prediction_does_not_depend_on_the_other_rows(cars, run, tmp_path):
    table = pd.read_csv(io.StringIO(CARS))
    whole = run(save_as(table, tmp_path / "new.csv"))["y_predicted"].tolist()
    for first, last in [(0, 1), (3, 5), (7, 24), (19, 60)]:
        some = run(save_as(table[first:last], tmp_path / "some.csv"))["y_predicted"].tolist()
        assert some == whole[first:last]


def test_many_batches_are_written_in_order(line, run, use_threads, tmp_path):
    table = pd.DataFrame({"row": np.arange(500_000), "x": np.linspace(0, 1, 500_000)})
    table.to_csv(tmp_path / "new.csv", index=False)
    outputs = set()
    for num_threads in (1, 3):
        use_threads(num_threads)
        assert run(tmp_path / "new.csv")["row"].tolist() == table["row"].tolist()
        outputs.add((tmp_path / "out.csv").read_bytes())
    assert len(outputs) == 1


def test_rows_outside_the_ranges_of_training_are_counted_once(line, run, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("x\n0.5\n-3\n1e9\n")
    capsys.readouterr()
    run(tmp_path / "new.csv")
    assert capsys.readouterr().err == (
        "predict: the model extrapolates, because values are outside the ranges of the training"
        " rows: `x` in 2 of 3 rows.\n"
    )
    (tmp_path / "new.csv").write_text("x\n0.5\n")
    run(tmp_path / "new.csv")
    assert capsys.readouterr().err == ""


FAULT = "{path}, row 3, column `x`: missing, not a number, or too far from the training rows"
MORE = '"n/a" (and 3 more cells of this column).'
CORRECT = "Correct it (see --decimal and --thousands), or leave the row out."


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "a,y\n1,2\n",
            "{path}: no column `x`. Correct the names; the columns are `a`, `y`.",
        ),
        ("x;y\n1;2\n", '{path}: one column, `x;y`. Set the delimiter to ";".'),
        ("x,y_predicted\n1,2\n", "{path}: a column is named `y_predicted`. Rename it."),
        (
            "x,y\n1,2\n,3\n4,5\n , \n",
            "{path}, row 3, column `x`: empty cell (and 1 more cell of this column). Fill it in, or"
            " leave the row out.",
        ),
        (
            'x\n1\nn/a\ninf\n1\n"2,5"\ntrue\n',
            f"{FAULT}: {MORE} {CORRECT}",
        ),
        ("x\n1\n1e39\n", f'{FAULT}: "1e39". {CORRECT}'),
        ("x\n0.5\n3e38\n", f'{FAULT}: "3e38". {CORRECT}'),
    ],
)
def test_a_faulty_table_is_refused_with_row_column_and_cure(
    line, refused, tmp_path, content, sentence
):
    path = tmp_path / "new.csv"
    path.write_text(content)
    assert refused(path) == sentence.format(path=path)
    assert not (tmp_path / "out.csv").exists()


def test_a_faulty_first_batch_writes_nothing(line, tmp_path, monkeypatch, capsysbinary):
    path = tmp_path / "new.csv"
    path.write_text("x\n0.5\nn/a\n")
    capsysbinary.readouterr()
    monkeypatch.setattr(sys, "argv", ["predict", str(RELEASE), str(path)])
    with pytest.raises(UserError):
        predict.main()
    assert capsysbinary.readouterr().out == b""


def test_an_unseen_category_is_named(cars, refused, tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("origin,fast,weight\nEU,true,1\nMars,false,2\n7,true,3\n")
    assert refused(path) == (
        f'{path}, row 3, column `origin`: not in the training rows: "Mars" (and 1 more cell of this'
        " column). Leave the row out, or train with such rows; the categories are `EU`, `Japan`,"
        " `USA`."
    )


def test_a_category_that_occurs_only_in_test_rows_is_refused(change, raw, refused, tmp_path):
    raw("t.csv", "c,x,y\n" + "".join(f"{'ABD'[i // 14]},{i},{i}\n" for i in range(40)))
    release(change, ORDERED | {"prepare.test": 0.3})
    path = tmp_path / "new.csv"
    path.write_text("c,x\nA,1\nD,5\n")
    assert refused(path) == (
        f'{path}, row 3, column `c`: not in the training rows: "D". Leave the row out, or train'
        " with such rows; the categories are `A`, `B`."
    )


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_files_of_a_folder_may_hold_integers_or_floats(line, run, refused, tmp_path, output):
    (tmp_path / "new").mkdir()
    pq.write_table(pa.table({"x": [0.5], "note": ["a"]}), tmp_path / "new/1.parquet")
    pq.write_table(pa.table({"x": [1], "note": pa.nulls(1)}), tmp_path / "new/2.parquet")
    assert run(tmp_path / "new", output=output)["x"].tolist() == [0.5, 1]
    pq.write_table(pa.table({"x": [0.5], "note": [0.5]}), tmp_path / "new/3.parquet")
    pq.write_table(pa.table({"x": [1], "note": ["b"]}), tmp_path / "new/0.parquet")
    pq.write_table(pa.table({"x": [1], "note": [dt.date(2024, 1, 31)]}), tmp_path / "new/4.parquet")
    if output == "out.csv":
        assert len(run(tmp_path / "new", output=output)) == 5


def test_an_output_keeps_its_mode_and_a_link_its_place(line, run, tmp_path):
    table = tmp_path / "new.csv"
    table.write_text("x\n0.5\n")
    secret, link = tmp_path / "secret.csv", tmp_path / "link.csv"
    secret.touch(mode=0o600)
    link.symlink_to(secret)
    assert len(run(table, output="link.csv")) == 1
    assert link.is_symlink()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_text().startswith("x,y_predicted\n0.5,")


def test_columns_that_the_model_does_not_need_may_hold_anything(line, run, tmp_path):
    day = pa.array([0, 1], pa.date32())
    table = pa.table({"day": day, "x": [0.1, None], "list": [[1], []]})
    pq.write_table(table.slice(0, 1), tmp_path / "new.parquet")
    assert len(run(tmp_path / "new.parquet", output="out.parquet")) == 1


def test_a_column_of_dates_is_refused(line, refused, tmp_path):
    path = tmp_path / "new.parquet"
    pq.write_table(pa.table({"x": pa.array([0], pa.date32())}), path)
    assert refused(path).startswith(
        f"{path}, column `x`: cells of the type date32[day] are neither"
    )


def test_a_delimiter_of_two_characters_is_refused(line, refused, tmp_path):
    (tmp_path / "new.csv").write_text("x\n1\n")
    sentence = "A delimiter must be one ASCII character. Got '::'."
    assert refused(tmp_path / "new.csv", "--delimiter", "::") == sentence


def test_thousands_and_decimals_must_have_different_signs(line, refused, tmp_path):
    (tmp_path / "new.csv").write_text("x\n1.234\n")
    assert refused(tmp_path / "new.csv", "--thousands", ".").startswith("--thousands and --decimal")


@pytest.mark.slow
def test_the_release_alone_predicts_to_the_standard_output(line, tmp_path):
    away = tmp_path / "away"
    shutil.copytree(RELEASE, away / "release")
    (away / "new.csv").write_text("x;note\n0,25;a\n0,5;b\n")
    arguments = ["python", "-m", "stages.predict", "release", "new.csv"]
    signs = ["--delimiter", ";", "--decimal", ","]
    result = command(away, *arguments, *signs, environment={"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "x;note;y_predicted"
    assert lines[1].startswith("0,25;a;0,")
    assert sorted(path.name for path in away.iterdir()) == ["new.csv", "release"]


def test_the_reader_of_the_predictions_may_stop(line, tmp_path):
    (tmp_path / "new.csv").write_text("x\n" + 200_000 * "0.5\n")
    program = f"{sys.executable} -m stages.predict {RELEASE.resolve()} {tmp_path}/new.csv"
    result = command(ROOT, "bash", "-c", f"{program} | head -n 1; exit ${{PIPESTATUS[0]}}")
    assert (result.returncode, result.stdout, result.stderr) == (141, "x,y_predicted\n", "")


FILLED = "origin,x,y\n" + "".join(
    f"{('USA', 'NA', 'EU')[i % 3]},{'' if i % 5 == 0 else i},{i}\n" for i in range(30)
)


@pytest.fixture
def filled(change, raw, releases):
    raw("t.csv", FILLED)
    changes = {"prepare.missing": "fill", "prepare.missing_values": ["NA", -999]}
    return released_once(releases / "filled", change, {**ORDERED, **changes})


def test_missing_cells_are_filled_as_in_training(filled, run, tmp_path, capsys):
    mean = float(np.mean([i for i in range(30) if i % 5]))
    (tmp_path / "new.csv").write_text(f"origin,x\nNA,-999\n,{mean!r}\nEU,\nEU,{mean!r}\n")
    capsys.readouterr()
    first, second, third, fourth = run(tmp_path / "new.csv")["y_predicted"].tolist()
    assert first == second != third == fourth
    assert capsys.readouterr().err == (
        "predict: missing cells are filled as in training: `origin` in 2, `x` in 2 of 4 rows.\n"
    )


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_faulty_rows_can_be_skipped_and_are_counted_by_reason(cars, run, tmp_path, capsys, output):
    good = "EU,true,1\nUSA,false,2\n"
    (tmp_path / "new.csv").write_text(f"origin,fast,weight\n{good}")
    expected = run(tmp_path / "new.csv")["y_predicted"].astype("float32").tolist()
    (tmp_path / "new.csv").write_text(
        "origin,fast,weight\nMars,true,1\nEU,true,1\n,true,\nUSA,false,2\nEU,yes,heavy\n"
    )
    capsys.readouterr()
    predictions = run(tmp_path / "new.csv", "--skip-faulty", output=output)["y_predicted"]
    assert predictions.isna().tolist() == [True, False, True, False, True]
    assert predictions[[1, 3]].astype("float32").tolist() == expected
    assert capsys.readouterr().err == (
        "predict: rows have no prediction, because of missing cells: `origin` in 1, `weight` in 1"
        " of 5 rows.\npredict: rows have no prediction, because of cells that the model cannot use:"
        " `origin` in 1, `fast` in 1, `weight` in 1 of 5 rows.\n"
    )


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ([], "1.000,5;0,25;"),
        (["--output-delimiter", "\\t"], "1.000,5\t0,25\t"),
        (["--output-delimiter", ",", "--output-decimal", "."], '"1.000,5","0,25",'),
    ],
)
def test_the_output_has_the_signs_of_the_table_unless_told_otherwise(
    line, run, tmp_path, options, first
):
    (tmp_path / "new.csv").write_text("note;x\n1.000,5;0,25\n")
    signs = ["--delimiter", ";", "--decimal", ",", "--thousands", "."]
    with suppress(pd.errors.ParserError):
        run(tmp_path / "new.csv", *signs, *options)
    row = (tmp_path / "out.csv").read_text().splitlines()[1]
    assert row.startswith(first)
    number = row[len(first) :]
    assert ("," in number) == ("--output-decimal" not in options)
    assert float(number.replace(",", ".")) > 0


def test_numbers_are_read_as_in_training_unless_told_otherwise(change, raw, run, tmp_path):
    table = "x;y\n" + "".join(f"{i}.{i}00,5;{i}\n" for i in range(1, 9))
    raw("t.csv", table)
    signs = {"prepare.delimiter": ";", "prepare.decimal": ",", "prepare.thousands": "."}
    release(change, ORDERED | signs)
    new = tmp_path / "new.csv"
    new.write_text("x;z\n2.200,5;1\n2200,5;1\n")
    options = ["--output-delimiter", ",", "--output-decimal", "."]
    first, second = run(new, *options)["y_predicted"]
    assert first == second
    new.write_text("x\n2200.5\n")
    plain = ["--delimiter", ",", "--decimal", ".", "--thousands", ""]
    assert run(new, *plain, *options)["y_predicted"][0] == first


def test_thousands_are_read_as_in_prepare(line, run, tmp_path):
    (tmp_path / "new.tsv").write_text("x\n1,234.5\n1234.5\n")
    first, second = run(tmp_path / "new.tsv", "--thousands", ",")["y_predicted"]
    assert first == second


def test_an_empty_cell_of_a_table_of_one_column_is_a_row(line, run, refused, tmp_path):
    (tmp_path / "new.csv").write_text("x\n0.1\n\n0.3\n")
    assert "row 3, column `x`: empty cell." in refused(tmp_path / "new.csv")
    assert len(run(tmp_path / "new.csv", "--skip-faulty")) == 3
