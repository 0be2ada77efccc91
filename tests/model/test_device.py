import pytest
import torch

from stages.base.errors import UserError
from stages.model.device import choose_device, set_numerics

pytestmark = pytest.mark.usefixtures("settings_come_back")


def pretend(monkeypatch, kind, count):
    device = None if kind is None else torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        (None, torch.float32, "cpu"),
        ("cuda", torch.float64, "cuda"),
        ("xpu", torch.float32, "xpu"),
        ("mps", torch.float32, "mps"),
        ("mps", torch.float64, "cpu"),
    ],
)
def test_auto_takes_the_accelerator_if_it_has_the_dtype(monkeypatch, kind, dtype, expected):
    pretend(monkeypatch, kind, 1)
    assert choose_device("auto", dtype) == torch.device(expected)


def test_a_named_device_is_taken(monkeypatch):
    pretend(monkeypatch, "cuda", 2)
    assert choose_device("cuda:1", torch.float32) == torch.device("cuda:1")
    assert torch.are_deterministic_algorithms_enabled()
    assert choose_device("cpu", torch.float32) == torch.device("cpu")


@pytest.mark.parametrize(
    ("kind", "count", "name", "available"),
    [
        (None, 0, "cuda", "no cuda"),
        (None, 0, "mps", "no mps"),
        ("cuda", 2, "xpu:0", "no xpu"),
        ("cuda", 2, "cuda:7", "2 cuda"),
        ("cuda", 1, "cuda:7", "1 cuda"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, kind, count, name, available):
    pretend(monkeypatch, kind, count)
    with pytest.raises(UserError) as error:
        choose_device(name, torch.float32)
    assert str(error.value) == (
        f"params.yaml: `device` is {name}, but this machine has {available} device(s)."
        " Set it to auto or cpu."
    )


def test_portable_numerics_use_the_kernels_that_every_cpu_has():
    set_numerics("portable")
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator on this machine")
def test_auto_really_computes_on_the_accelerator():
    chosen = choose_device("auto", torch.float32)
    assert chosen.type != "cpu"
    assert torch.ones(3, device=chosen).sum().item() == 3
