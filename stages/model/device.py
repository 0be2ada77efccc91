"""The device that holds the tensors, and the kernels that compute on it."""

import os

import torch

from stages.base.errors import UserError

KINDS = ("cuda", "mps", "xpu")


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
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        is_usable = accelerator is not None and accelerator.type in KINDS
        lacks_dtype = accelerator == torch.device("mps") and dtype == torch.float64
        device = (
            accelerator if accelerator and is_usable and not lacks_dtype else torch.device("cpu")
        )
    else:
        device = torch.device(name)
    if device.type in {"cuda", "xpu"} and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))  # one per rank
    if device.type != "cpu":
        is_available = accelerator is not None and accelerator.type == device.type
        names = [
            f"{device.type}:{i}" for i in range(torch.accelerator.device_count() * is_available)
        ]
        if (device.index or 0) >= len(names):
            available = (
                " to ".join(sorted({names[0], names[-1]})) if names else f"no {device.type} device"
            )
            raise UserError(
                f"params.yaml: `device` is {name}, but this machine has {available}. Set it to"
                " auto or cpu."
            )
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("highest")
    return device
