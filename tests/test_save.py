import hashlib
import re
import subprocess
import sys

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
import torch

from stages import evaluate, prepare, save, train
from stages.base.errors import UserError
from stages.base.files import EVALUATION, PREPARED, RELEASE, WEIGHTS, read_json, write_json
from stages.base.params import load_params
from stages.model.model import Model
from stages.release.proof import prove
from stages.rows.split import Split
from tests.conftest import ROOT, command, contents

NOT_RELEASED = (
    "save: not released. `dvc checkout models/release` brings back the one before, if DVC has"
    " deleted it."
)


@pytest.fixture
def trained(change):
    """A trained and evaluated model."""

    def run(changes):
        change(changes)
        prepare.main()
        train.main()
        evaluate.main()

    return run


def test_a_released_model_predicts_the_same_bits_in_a_new_process(trained, capfd, tmp_path):
    trained({"train.hidden": [16], "train.epochs": 5})
    save.main()
    released = RELEASE / "model.safetensors"
    assert sorted(path.name for path in RELEASE.iterdir()) == [
        "README.md",
        "figure.svg",
        "model.json",
        "model.onnx",
        "model.safetensors",
    ]
    out, err = capfd.readouterr()
    assert "save: loaded in a new process, the same predictions to the bit on 200 rows" in out
    assert "save: ONNX Runtime predicts the same from model.onnx, to " in out
    assert f"; model.safetensors, {released.stat().st_size} bytes" in out
    assert "torch" not in err
    inputs = torch.rand(100, 1)
    assert torch.equal(Model.load(released)(inputs), Model.load(WEIGHTS)(inputs))


def test_without_test_rows_the_proof_is_on_the_training_rows(trained, capfd):
    trained({"prepare.test": 0, "train.epochs": 5})
    save.main()
    assert "to the bit on 900 rows" in capfd.readouterr().out
    proof = read_json(RELEASE / "model.json")["proof"]
    assert proof == {
        "split": "train",
        "rows": 900,
        "batches": [1, 2, 7, 100_000],
        "onnx_difference_at_most": 1e-6,
    }


def test_model_json_holds_what_the_model_is_and_where_it_comes_from(trained):
    trained({"prepare.dtype": "float64", "train.hidden": [3], "train.epochs": 2})
    (PREPARED / ".DS_Store").touch()  # one of the files that .dvcignore names
    save.main()
    found = read_json(RELEASE / "model.json")
    training = pq.read_table(PREPARED / "train.parquet").to_pydict()
    for column, name in ((found["inputs"][0], "x"), (found["target"], "y")):
        assert (column["name"], column["type"]) == (name, "float64")
        assert (column["minimum"], column["maximum"]) == (min(training[name]), max(training[name]))
    assert found["architecture"] == {"activation": "relu", "hidden": [3], "widths": [1, 3, 1]}
    assert found["parameters"] == load_params().model_dump()
    assert found["scores"] == read_json(EVALUATION)
    assert found["trained_on"] == "cpu"
    assert found["versions"]["torch"] == "2.13.0"
    for folder, key in ((PREPARED, "data"), (RELEASE, "files")):
        for name, listed in found[key].items():
            content = (folder / name).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            assert listed in (sha256, {"sha256": sha256, "size_bytes": len(content)})
    splits = ["test.parquet", "train.parquet", "validation.parquet"]
    assert [*found["data"]] == ["statistics.json", *splits]
    assert [*found["files"]] == ["model.onnx", "model.safetensors"]


def test_onnx_that_predicts_otherwise_is_not_released(trained, monkeypatch, capfd):
    trained({"train.epochs": 5})
    run_module = save.run_module

    def change_onnx_after_export(name, folder):
        is_done = run_module(name, folder)
        if name == save.EXPORT:
            proto = onnx.load(folder / "model.onnx")
            [weight] = [t for t in proto.graph.initializer if t.name == "network.0.weight"]
            weight.raw_data = (np.frombuffer(weight.raw_data, np.float32) * 1.01).tobytes()
            onnx.save(proto, folder / "model.onnx")
        return is_done

    monkeypatch.setattr(save, "run_module", change_onnx_after_export)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == NOT_RELEASED
    assert re.search(
        r"^save: ONNX Runtime predicts otherwise than model.safetensors: a difference of 0\.00\d+,"
        r" where 1e-06 is allowed\. Set `save\.onnx` to false\.$",
        capfd.readouterr().err,
        re.MULTILINE,
    )
    assert not RELEASE.exists()


def test_without_onnx_nothing_of_it_is_imported_and_no_file_is_written(trained, tmp_path):
    trained({"train.epochs": 1, "save.onnx": False})
    home = tmp_path / "home"
    home.mkdir()
    # Every process of the stage notes what it has imported, on its standard error.
    environment = {"PYTHONPROFILEIMPORTTIME": "1", "HOME": str(home), "PYTHONPATH": str(ROOT)}
    end = command(tmp_path, sys.executable, "-m", "stages.save", environment=environment)
    assert end.returncode == 0, end.stderr
    assert " torch\n" in end.stderr
    assert not re.search(r"\| +(onnx|onnxruntime|onnxscript)(\.|\n)", end.stderr)
    assert not (RELEASE / "model.onnx").exists()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("name", ["least_squares", "train"])
def test_scores_without_their_parts_are_damaged(trained, name):
    trained({"train.epochs": 1, "save.onnx": False})
    scores = read_json(EVALUATION)
    del scores[name]
    write_json(EVALUATION, scores)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == (
        "metrics/evaluation.json is damaged: no scores. Run `dvc repro --force evaluate`."
    )


def test_a_model_that_predicts_otherwise_is_not_released(trained, monkeypatch, capfd):
    trained({"train.epochs": 5, "save.onnx": False})
    save.main()
    before = contents(RELEASE)

    def copy_with_one_bit_changed(source, target):
        content = bytearray(source.read_bytes())
        if source == WEIGHTS:
            content[-1] ^= 1  # the last byte of the last tensor
        target.write_bytes(content)

    monkeypatch.setattr(save.shutil, "copyfile", copy_with_one_bit_changed)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == NOT_RELEASED
    assert "predicts otherwise than the trained one" in capfd.readouterr().err
    assert contents(RELEASE) == before
    assert [path.name for path in RELEASE.parent.iterdir()] == ["trained", "release"]


def test_the_proof_compares_bits_and_not_values(trained):
    trained({"train.epochs": 1, "train.standardize": False})
    model, negative = Model.load(WEIGHTS), Model.load(WEIGHTS)
    for candidate, zero in [(model, 0.0), (negative, -0.0)]:
        for parameter in candidate.parameters():
            parameter.data.fill_(zero)
        candidate.target_mean.fill_(zero)
        candidate.target_scale.fill_(1.0)
    split = Split(WEIGHTS.parents[2] / "data/prepared/test.parquet")
    prove(model, model, split)
    inputs = torch.rand(3, 1)
    assert torch.equal(model(inputs), negative(inputs))
    with pytest.raises(UserError):
        prove(negative, model, split)


def test_a_model_that_misses_its_requirements_is_not_released(trained):
    trained({"save.require": {"r2": 0.99, "rmse": 0.01, "mae": 0.1, "max_error": 0.1}})
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


def test_a_model_that_meets_its_requirements_is_released(trained):
    trained({"save.require": {"r2": 0.9, "rmse": 0.06}, "save.onnx": False})
    save.main()
    assert RELEASE.exists()


def test_requirements_are_of_the_training_rows_where_there_are_no_test_rows():
    scores = {"train": {"rmse": 0.5}}
    save.require_scores(scores, {"rmse": 0.5})
    with pytest.raises(UserError) as error:
        save.require_scores(scores, {"r2": 0.5})
    assert str(error.value) == (
        "save: `save.require.r2` must be at least 0.5 for a release. Got none on the train rows."
    )


def test_save_itself_does_not_import_torch(trained):
    trained({"train.epochs": 1, "save.onnx": False})
    code = "import sys, stages.save; stages.save.main(); print('torch' in sys.modules)"
    end = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert end.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("content", [{}, {"test": None}, {"test": {"r2": "high"}}, {"test": []}])
def test_damaged_scores_are_no_scores(content):
    with pytest.raises(UserError) as error:
        save.require_scores(content, {"r2": 0.5})
    assert str(error.value) == (
        "metrics/evaluation.json is damaged: no scores. Run `dvc repro --force evaluate`."
    )
