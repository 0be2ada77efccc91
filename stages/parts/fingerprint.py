"""What decides the result of a training: two of the same fingerprint end with the same bits."""

from hashlib import sha256
from pathlib import Path

import torch

from stages.parts.files import digest
from stages.parts.params import TrainParams

CODE = Path(__file__).parents[1]


def fingerprint(params: TrainParams, device: torch.device, data: list[Path]) -> dict[str, bytes]:
    """A digest of 32 bytes of each thing, by the name under which a user knows it."""
    kernels = torch.backends.cpu.get_cpu_capability() if params.numerics == "native" else ""
    words = {
        "`train` section in params.yaml": params.model_dump_json(),
        "kind of device": device.type,
        "kind of CPU, with `train.numerics` native": kernels,
        "version of PyTorch": torch.__version__,
    }
    digests = {name: sha256(text.encode()).digest() for name, text in words.items()}
    digests["content of data/prepared"] = digest(data)
    digests["code in stages/"] = digest(CODE.rglob("*.py"))
    return digests
