import pytest
import torch

from stages.base import inputs
from stages.base.params import load_params
from stages.training.fingerprint import code_digest, fingerprint

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    return [tmp_path / "a", tmp_path / "b"]


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if one[name] != other[name]]


def test_the_same_training_has_the_same_fingerprint(workspace, data):
    params = load_params().train
    assert fingerprint(params, CPU, data) == fingerprint(params, CPU, data[::-1])


def test_whatever_changes_the_result_changes_the_fingerprint_under_its_name(workspace, data):
    params = load_params().train
    before = fingerprint(params, CPU, data)
    other = params.model_copy(update={"lr": 0.2})
    assert differing(before, fingerprint(other, CPU, data)) == ["`train` section in params.yaml"]
    assert differing(before, fingerprint(params, torch.device("cuda"), data)) == ["kind of device"]
    data[1].write_text("c")
    assert differing(before, fingerprint(params, CPU, data)) == ["content of data/prepared"]


def test_the_fingerprint_with_native_numerics_contains_the_cpu(workspace, data, monkeypatch):
    native = load_params().train.model_copy(update={"numerics": "native"})
    before = fingerprint(native, CPU, data)
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    changed = differing(before, fingerprint(native, CPU, data))
    assert changed == ["kind of CPU, with `train.numerics` native"]


def test_folders_and_files_that_editors_leave_are_not_code(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "CODE", tmp_path)
    (tmp_path / "train.py").write_text("a = 1\n")
    before = code_digest()
    (tmp_path / ".#train.py").symlink_to("somebody@host.1:2")  # a lock, which leads nowhere
    (tmp_path / ".hidden.py").write_text("a = 2\n")
    (tmp_path / "folder.py").mkdir()
    assert code_digest() == before
    (tmp_path / "train.py").write_text("a = 2\n")
    assert code_digest() != before
