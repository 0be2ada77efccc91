"""The state of a training between two steps: everything that decides how it continues."""

import io
import math
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor, nn, optim

History = list[tuple[int, float, float | None]]  # epoch, train_loss, validation_loss
MAX_HISTORY_ROWS = 1000
NUM_DIGEST_BYTES = 32
SIMPLE = ("epoch", "step", "total_loss", "best_loss", "best_epoch", "best_network")


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
        """Return a SHA-256, and what `torch.save` writes.

        The SHA-256 covers the fingerprint and the rest: no other training continues from it.
        """
        content = {name: getattr(self, name) for name in SIMPLE}
        content["network"] = self.network.state_dict()
        content["optimizer"] = self.optimizer.state_dict()
        # None becomes NaN. An array, because lists of rows would start Python's garbage collector.
        content["history"] = torch.from_numpy(np.array(self.history, dtype=np.float64))
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return sha256(fingerprint + buffer.getvalue()).digest() + buffer.getvalue()

    def restore(self, content: bytes, fingerprint: bytes) -> None:
        """Go back to the state that `to_bytes` wrote for this fingerprint.

        Raises:
            ValueError: If the content is damaged or belongs to another fingerprint.
        """
        digest, content = content[:NUM_DIGEST_BYTES], content[NUM_DIGEST_BYTES:]
        if sha256(fingerprint + content).digest() != digest:
            raise ValueError("the SHA-256 does not match")
        saved = torch.load(io.BytesIO(content), weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name in SIMPLE:
            setattr(self, name, saved[name])
        self.history = [
            (int(epoch), loss, None if math.isnan(validation_loss) else validation_loss)
            for epoch, loss, validation_loss in saved["history"].tolist()
        ]


def last_losses(history: History) -> str:
    """Return the last epoch's losses as text, such as ``, loss 0.12, validation loss 0.15``."""
    return "".join(
        f", {name} {loss:.4g}"
        for _, *losses in history[-1:]
        for name, loss in zip(("loss", "validation loss"), losses, strict=True)
        if loss is not None
    )


def thin(history: History) -> History:
    """Keep at most 1,000 rows of the history, evenly spaced, always with the last one."""
    stride = math.ceil(len(history) / MAX_HISTORY_ROWS)
    return [row for row in history if row[0] % stride == 0 or row[0] == len(history)]
