"""The device that holds the tensors, and the kernels that compute on it."""

import os

import torch

from stages.base.errors import UserError


def set_numerics(numerics: str) -> None:
    """Choose the CPU kernels; call this before the first tensor operation.

    Portable numerics use the kernels that every x86-64 CPU has. PyTorch and MKL read these
    variables when they first compute, not when they are imported. Each operation uses one thread,
    because many blocks are computed at the same time.
    """
    torch.set_num_threads(1)
    if numerics == "portable":
        os.environ["ATEN_CPU_CAPABILITY"] = "default"
        os.environ["MKL_CBWR"] = "COMPATIBLE"
        assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"


def choose_device(name: str, dtype: torch.dtype) -> torch.device:
    """Return the device ``name``; ``auto`` is an accelerator that has ``dtype``, else the CPU.

    Raises:
        UserError: If this machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    device = found if name == "auto" else torch.device(name)
    has_dtype = device.type != "mps" or dtype != torch.float64
    if device.type == "cpu" or (name == "auto" and not has_dtype):
        return torch.device("cpu")
    if device.index is None and device.type != "mps" and "LOCAL_RANK" in os.environ:
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))  # one per rank
    num_devices = torch.accelerator.device_count() if found.type == device.type else 0
    if (device.index or 0) >= num_devices:
        raise UserError(
            f"params.yaml: `device` is {name}, but this machine has {num_devices or 'no'}"
            f" {device.type} device(s). Set it to auto or cpu."
        )
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device
