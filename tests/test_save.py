import subprocess
import sys

import pytest
import torch

from stages import evaluate, prepare, save, train
from stages.parts.errors import UserError
from stages.parts.files import RELEASE, WEIGHTS
from stages.parts.model import Model
from stages.parts.proof import prove
from stages.parts.split import Split


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
    assert [path.name for path in RELEASE.iterdir()] == ["model.safetensors"]
    out = capfd.readouterr().out
    assert "save: loaded in a new process, the same predictions to the bit on 200 rows" in out
    assert f"save: models/release/model.safetensors, {released.stat().st_size} bytes" in out
    inputs = torch.rand(100, 1)
    assert torch.equal(Model.load(released)(inputs), Model.load(WEIGHTS)(inputs))


def test_without_test_rows_the_proof_is_on_the_training_rows(trained, capfd):
    trained({"prepare.test": 0, "train.epochs": 5})
    save.main()
    assert "to the bit on 900 rows" in capfd.readouterr().out


def test_a_model_that_predicts_otherwise_is_not_released(trained, monkeypatch, capfd):
    trained({"train.epochs": 5})
    save.main()
    before = (RELEASE / "model.safetensors").read_bytes()

    def copy_with_one_bit_changed(source, target):
        content = bytearray(source.read_bytes())
        content[-1] ^= 1  # the last byte of the last tensor
        target.write_bytes(content)

    monkeypatch.setattr(save.shutil, "copyfile", copy_with_one_bit_changed)
    with pytest.raises(UserError) as error:
        save.main()
    assert str(error.value) == "save: not released; models/release is as it was."
    assert "predicts otherwise than the trained one" in capfd.readouterr().err
    assert (RELEASE / "model.safetensors").read_bytes() == before
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
    trained({"save.require": {"r2": 0.9, "rmse": 0.06}})
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
    trained({"train.epochs": 1})
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
