import hashlib
import re
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from stages import evaluate, prepare, save, train
from stages.base.errors import UserError
from stages.base.files import (
    EVALUATION,
    FIGURE,
    PREDICTIONS,
    PREPARED,
    RELEASE,
    STATISTICS,
    WEIGHTS,
    read_json,
    write_json,
)
from stages.base.params import load_params
from stages.model.model import Model
from stages.release import export as exporting
from stages.rows.predictions import predictions_file
from tests.conftest import ROOT, command, contents

SAVE = "import sys, stages.save; stages.save.main(); print('torch' in sys.modules)"


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder in which all stages have run, without ONNX, and what `save` printed in it."""
    folder = tmp_path_factory.mktemp("once")
    shutil.copytree(ROOT / "data/raw", folder / "data/raw")
    params = (ROOT / "params.yaml").read_text().replace("onnx: true", "onnx: false")
    (folder / "params.yaml").write_text(params.replace("require: {}", "require: {r2: 0.9}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (prepare, train, evaluate):
            stage.main()
    (folder / PREPARED / ".DS_Store").touch()  # one of the files that .dvcignore names
    (folder / "home").mkdir()
    # Every process of the stage notes what it has imported, on its standard error.
    environment = {
        "PYTHONPROFILEIMPORTTIME": "1",
        "HOME": f"{folder}/home",
        "PYTHONPATH": str(ROOT),
    }
    return folder, command(folder, sys.executable, "-c", SAVE, environment=environment)


@pytest.fixture
def released(once, workspace):
    """A copy of that folder, in which a test works."""
    return shutil.copytree(once[0], workspace, dirs_exist_ok=True)


@pytest.fixture
def trained(change):
    """Prepare, train and evaluate with the given parameters."""

    def run(changes):
        change(changes)
        for stage in (prepare, train, evaluate):
            stage.main()

    return run


def test_a_model_that_meets_its_requirements_is_released_and_predicts_the_same_bits(once):
    folder, result = once
    assert result.returncode == 0, result.stderr
    model = folder / RELEASE / "model.safetensors"
    assert sorted(path.name for path in model.parent.iterdir()) == [
        "README.md",
        "figure.svg",
        "model.json",
        "model.safetensors",
    ]
    assert result.stdout.splitlines()[:2] == [
        "save: NumPy and PyTorch predict the same for 200 test rows; largest difference 0e+00",
        f"save: models/release: model.safetensors, {model.stat().st_size} bytes",
    ]
    inputs = torch.rand(100, 1)
    assert torch.equal(Model.load(model)(inputs), Model.load(folder / WEIGHTS)(inputs))


def test_save_imports_no_torch_and_without_onnx_nothing_of_onnx(once):
    folder, result = once
    assert result.stdout.splitlines()[-1] == "False"
    assert not re.search(r"\| +(onnx|onnxruntime|onnxscript)(\.|\n)", result.stderr)
    assert list((folder / "home").iterdir()) == []


def test_model_json_holds_what_the_model_is_and_where_it_comes_from(released):
    manifest = read_json(RELEASE / "model.json")
    training = pq.read_table(PREPARED / "train.parquet").to_pydict()
    for column, name in ((manifest["inputs"][0], "x"), (manifest["target"], "y")):
        assert (column["name"], column["type"]) == (name, "float32")
        assert (column["minimum"], column["maximum"]) == (min(training[name]), max(training[name]))
    assert manifest["architecture"] == {"network": "a linear model", "widths": [1, 1]}
    params = load_params().model_dump()
    made = {section: params[section] for section in ("prepare", "train", "save")}
    assert manifest["parameters"] == made
    assert manifest["scores"] == read_json(EVALUATION)
    assert manifest["trained_on"] == "cpu"
    assert manifest["versions"]["torch"] == "2.13.0"
    for folder, key in ((PREPARED, "data"), (RELEASE, "files")):
        for name, listed in manifest[key].items():
            content = (folder / name).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert listed in (sha256, {"sha256": sha256, "size_bytes": len(content)})
    splits = ["test.parquet", "train.parquet", "validation.parquet"]
    assert [*manifest["data"]] == ["statistics.json", *splits]
    assert [*manifest["files"]] == ["model.safetensors"]


def test_a_release_states_the_parameters_that_made_it_not_those_that_are_set_now(released, change):
    change({"prepare.noise": 9.0, "train.lr": 9.0})
    save.main()
    parameters = read_json(RELEASE / "model.json")["parameters"]
    assert (parameters["prepare"]["noise"], parameters["train"]["lr"]) == (0.05, 0.1)


def test_a_release_with_onnx_is_exported_and_proved(trained, capfd):
    trained({"prepare.dtype": "float64", "train.hidden": [3], "train.epochs": 2})
    save.main()
    result = capfd.readouterr()
    assert "save: ONNX Runtime and PyTorch predict the same for 200 test rows; " in result.out
    assert result.err == ""
    manifest = read_json(RELEASE / "model.json")
    assert [*manifest["files"]] == ["model.onnx", "model.safetensors"]
    assert manifest["architecture"]["widths"] == [1, 3, 1]
    assert manifest["target"]["type"] == "float64"
    assert manifest["proof"]["programs"] == ["numpy", "model.onnx"]


def test_without_test_rows_requirements_and_proof_are_of_the_training_rows(trained, capfd):
    changes = {"prepare.test": 0, "train.epochs": 5, "save.onnx": False}
    trained(changes | {"save.require": {"rmse": 1.0}})
    save.main()
    assert "predict the same for 900 train rows" in capfd.readouterr().out
    proof = read_json(RELEASE / "model.json")["proof"]
    assert (proof["split"], proof["rows"]) == ("train", 900)


def test_onnx_that_predicts_other_values_is_not_released(released, change, monkeypatch):
    shutil.rmtree(RELEASE)
    change({"save.onnx": True, "save.require": {}})
    export = exporting.export

    def export_another(path):
        model = Model.load(path)
        with torch.no_grad():
            model.network[0].weight *= 1.001
        other = path.with_name("other")
        other.write_bytes(model.to_bytes(torch.device("cpu"), []))
        return export(other)

    monkeypatch.setattr(exporting, "export", export_another)
    with pytest.raises(UserError) as error:
        save.main()
    assert re.fullmatch(
        r"save: ONNX Runtime and PyTorch predict different values from the released weights: they"
        r" differ by [\d.e-]+, and at most [\d.e-]+ is allowed\."
        r" Set `save\.onnx` to false\.",
        str(error.value),
    )
    assert not RELEASE.exists()


def change_predictions(change):
    """Write the predictions again, changed, as if `evaluate` had predicted them."""
    table = pq.read_table(PREDICTIONS)
    with predictions_file("float32") as append:
        append(change(table["predicted"].to_numpy()))


def test_predictions_of_another_model_are_not_released(released):
    before = contents(RELEASE)
    change_predictions(lambda numbers: numbers + np.float32(1e-4))
    with pytest.raises(UserError, match="save: NumPy and PyTorch predict different values"):
        save.main()
    assert contents(RELEASE) == before
    assert sorted(p.name for p in RELEASE.parent.iterdir()) == ["release", "trained"]


def change_weights():
    content = bytearray(WEIGHTS.read_bytes())
    content[-1] ^= 1  # the last byte of the last tensor
    WEIGHTS.write_bytes(content)


def change_a_target():
    """Correct a validation row: no prediction, and nothing in statistics.json, changes."""
    path = PREPARED / "validation.parquet"
    table = pq.read_table(path)
    targets = table["y"].to_numpy().copy()
    targets[0] += 1
    pq.write_table(table.set_column(1, table.schema.field("y"), pa.array(targets)), path)


@pytest.mark.parametrize(
    "mix",
    [
        change_weights,
        lambda: write_json(EVALUATION, read_json(EVALUATION) | {"more": {}}),
        lambda: change_predictions(lambda numbers: numbers[1:]),
        lambda: FIGURE.write_text("another figure"),
        lambda: STATISTICS.write_text(STATISTICS.read_text() + "\n"),
        change_a_target,
    ],
    ids=["weights", "scores", "rows", "figure", "statistics", "targets"],
)
def test_scores_and_predictions_of_other_weights_or_rows_are_not_released(released, mix):
    before = contents(RELEASE)
    mix()
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == (
        "save: metrics/evaluation.json, metrics/plots/figure.svg and metrics/predictions.parquet"
        " were not made from models/trained/weights.safetensors and data/prepared. Run"
        " `dvc repro --force evaluate`."
    )
    assert contents(RELEASE) == before


@pytest.mark.parametrize("content", [None, b"", b"no predictions"])
def test_a_file_that_does_not_hold_predictions_is_refused(released, content):
    PREDICTIONS.unlink()
    if content is not None:
        PREDICTIONS.write_bytes(content)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == (
        "metrics/predictions.parquet does not hold predictions. Run `dvc repro --force evaluate`."
    )


def test_a_model_that_misses_its_requirements_is_not_released(released, change):
    change({"save.require": {"r2": 0.99, "rmse": 0.01, "mae": 0.1, "max_error": 0.1}})
    shutil.rmtree(RELEASE)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == (
        "save: `save.require.max_error` must be at most 0.1 for a release. Got 0.185881 on the test"
        " rows.\n"
        "save: `save.require.r2` must be at least 0.99 for a release. Got 0.940089 on the test"
        " rows.\n"
        "save: `save.require.rmse` must be at most 0.01 for a release. Got 0.0496839 on the test"
        " rows."
    )
    assert not RELEASE.exists()


def test_a_missing_r2_meets_no_requirement():
    with pytest.raises(UserError) as error:
        save.require_scores({"rmse": 0.5}, "train", {"r2": 0.5, "rmse": 0.5})
    assert str(error.value) == (
        "save: `save.require.r2` must be at least 0.5 for a release. Got nan on the train rows."
    )
