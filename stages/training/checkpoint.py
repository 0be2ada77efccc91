"""The state of a training between two steps: everything that decides how it continues."""

import json
import math
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from stages.base.errors import UserError
from stages.training.memory import available_bytes

History = list[tuple[int, float, float | None]]  # epoch, train_loss, validation_loss
NUM_DIGEST_BYTES = 32
NUM_COPIES = 3  # of all tensors, while safetensors writes them
SIMPLE = ("epoch", "step", "total_loss", "best_loss", "best_epoch", "best_network")

# What reading a state can raise if `to_bytes` did not write it.
FORGED = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError,
    RuntimeError, SafetensorError,
)  # fmt: skip


@dataclass
class State:
    """What is done so far and, with early stopping, the best network so far."""

    network: nn.Module
    optimizer: optim.Optimizer
    epoch: int = 0
    step: int = 0  # in this epoch
    total_loss: float = 0.0  # sum over this epoch's steps of mean loss times rows
    history: History = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_network: dict[str, Tensor] = field(default_factory=dict)

    def end_epoch(self, num_rows: int, validation_loss: float | None) -> None:
        """Add the losses to the history, and begin the next epoch."""
        self.epoch += 1
        self.history.append((self.epoch, self.total_loss / num_rows, validation_loss))
        self.step, self.total_loss = 0, 0.0

    def to_bytes(self, fingerprint: bytes) -> bytes:
        """Return a SHA-256, then a safetensors file: it holds no code, and every number exactly.

        The SHA-256 covers the fingerprint and the file: no other training continues from it.

        Raises:
            MemoryError: If this process has too little memory left.
        """
        values = {name: getattr(self, name) for name in SIMPLE}
        values["network"] = self.network.state_dict()
        values["optimizer"] = self.optimizer.state_dict()
        # None becomes NaN. An array, because lists of rows would start Python's garbage collector.
        values["history"] = torch.from_numpy(np.array(self.history, dtype=np.float64))
        tensors: dict[str, Tensor] = {}
        text = json.dumps(_pack(values, tensors))
        free = available_bytes(torch.device("cpu"))
        if 0 < free < NUM_COPIES * sum(tensor.nbytes for tensor in tensors.values()):
            raise MemoryError  # safetensors would abort this process
        content = save(tensors, {"state": text})
        return sha256(fingerprint + content).digest() + content

    def restore(self, content: bytes, fingerprint: bytes) -> None:
        """Go back to the state that `to_bytes` wrote for this fingerprint.

        Raises:
            ValueError: If the content is damaged or belongs to another fingerprint.
            UserError: If the SHA-256 is right, but `to_bytes` did not write the content.
        """
        digest, content = content[:NUM_DIGEST_BYTES], content[NUM_DIGEST_BYTES:]
        if sha256(fingerprint + content).digest() != digest:
            raise ValueError("the SHA-256 does not match")
        try:
            self._restore(content)
        except FORGED:
            raise UserError(
                "train: the checkpoint was not written by this program. Delete `.resume`."
            ) from None

    def _restore(self, content: bytes) -> None:
        size = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + size])["__metadata__"]["state"]
        values = _unpack(json.loads(text), load(content))
        self.history = [
            (int(epoch), loss, None if math.isnan(validation_loss) else validation_loss)
            for epoch, loss, validation_loss in values["history"].tolist()
        ]
        are_typed = all(isinstance(values[name], type(getattr(self, name))) for name in SIMPLE)
        if not are_typed or values["epoch"] != len(self.history) or values["step"] < 0:
            raise ValueError
        self.network.load_state_dict(values["network"])
        self.optimizer.load_state_dict(values["optimizer"])
        for name in SIMPLE:
            setattr(self, name, values[name])


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the value for JSON, with names for its tensors, which are added to ``tensors``."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, tensors) for item in value]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _unpack(item, tensors) for key, item in value["items"]}
