"""The fingerprint of a training: trainings with the same fingerprint end with the same bits."""

import os
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch

from stages.base.files import digest
from stages.base.inputs import code_files
from stages.base.params import TrainParams
from stages.model.model import RECORDED_VERSIONS

CPUINFO = Path("/proc/cpuinfo")


def code_digest() -> dict[str, bytes]:
    """Return the digest of all code; compare it first: other code may compare other things."""
    return {"code in stages/": digest(code_files())}


def fingerprint(params: TrainParams, device: torch.device, data: list[Path]) -> dict[str, bytes]:
    """Return a digest of 32 bytes for everything that decides the result, by a name for users."""
    texts = {
        "`train` section in params.yaml": params.model_dump_json(),
        "kind of device": _device_kind(device),
        "kind of CPU, with `train.numerics` native": _cpu() if params.numerics == "native" else "",
        "versions of the packages": str({name: version(name) for name in RECORDED_VERSIONS}),
    }
    digests = {name: sha256(text.encode()).digest() for name, text in texts.items()}
    return digests | {"content of data/prepared": digest(data)} | code_digest()


def _device_kind(device: torch.device) -> str:
    is_cuda = device.type == "cuda" and torch.cuda.is_available()
    return f"{device.type} {torch.cuda.get_device_name(device) if is_cuda else ''}"


def _cpu() -> str:
    """Return all that decides which kernels PyTorch and MKL choose."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    kinds = {line for line in lines if line.startswith(("model name", "flags"))}
    chosen = [torch.backends.cpu.get_cpu_capability(), os.environ.get("MKL_CBWR", "")]
    return "\n".join([*chosen, *sorted(kinds)])
