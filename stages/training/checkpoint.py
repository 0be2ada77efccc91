"""Checkpoints: a training that is stopped anywhere continues, to the same bits.

A checkpoint lies outside the outputs, which DVC deletes before it runs a stage. The name of its
file is the training's fingerprint: trainings with the same fingerprint end with the same bits.
"""

import hashlib
import io
import math
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn, optim

from stages.base.files import CODE, files_in, sha256, write_aside
from stages.base.params import TrainParams
from stages.model.model import RECORDED_VERSIONS
from stages.training.ranks import Ranks

INTERVAL_SECONDS = 2.0
MAX_SAVING_FRACTION = 0.02  # of the time
KEPT_SECONDS = 30 * 24 * 3600  # after the last save
RETRY_SECONDS = 60.0  # after a checkpoint could not be written

History = list[tuple[int, float, float | None]]  # epoch, train_loss, validation_loss


@dataclass
class State:
    """Everything that decides how a training continues, between two of its steps."""

    network: nn.Module
    optimizer: optim.Optimizer
    epoch: int = 0
    step: int = 0  # in this epoch
    total_loss: float = 0.0  # sum over this epoch's steps of mean loss times rows
    history: History = field(default_factory=list)
    best_loss: float = math.inf  # with early stopping
    best_epoch: int = 0
    best_network: dict[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + f", step {self.step}" * (self.step > 0)

    def end_epoch(self, num_rows: int, validation_loss: float | None) -> None:
        """Add the losses to the history, and begin the next epoch."""
        self.epoch += 1
        self.history.append((self.epoch, self.total_loss / num_rows, validation_loss))
        self.step, self.total_loss = 0, 0.0

    def to_bytes(self) -> bytes:
        """Return all of it as `torch.save` writes it."""
        content = vars(self) | {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            # None becomes NaN. An array, because torch.save is slow for long lists.
            "history": torch.from_numpy(np.array(self.history, dtype=np.float64)),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def restore(self, content: bytes) -> None:
        """Go back to the state that `to_bytes` wrote."""
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        self.network.load_state_dict(saved.pop("network"))
        self.optimizer.load_state_dict(saved.pop("optimizer"))
        saved["history"] = [
            (int(epoch), loss, None if math.isnan(validation_loss) else validation_loss)
            for epoch, loss, validation_loss in saved["history"].tolist()
        ]
        vars(self).update(saved)


class Checkpoint:
    """The checkpoint of one training; rank 0 keeps it for all ranks.

    In its ``with`` block, SIGTERM, SIGINT and SIGHUP let the step end, save and end the process.
    """

    def __init__(
        self, params: TrainParams, device: torch.device, data: Sequence[Path], ranks: Ranks
    ) -> None:
        code = [f"{path.relative_to(CODE)} {sha256(path)}" for path in files_in(CODE)]
        parts = {  # everything that decides the result, by a name for users
            "code in stages/": code,
            "content of data/prepared": [sha256(path) for path in data],
            "`train` section in params.yaml": [params.model_dump_json()],
            "kind of device": [device.type],
            "versions of the packages": [f"{name} {version(name)}" for name in RECORDED_VERSIONS],
        }
        digests = {
            name: hashlib.sha256("\n".join(part).encode()).digest() for name, part in parts.items()
        }
        ranks.require_equal(digests)
        self._fingerprint = hashlib.sha256(b"".join(digests.values())).digest()
        # DVC runs an experiment in a copy of the project; its checkpoint lies in the original.
        root = os.environ.get("DVC_ROOT", ".")
        self._path = Path(root, ".resume", f"{self._fingerprint.hex()[:32]}.pt")
        self._ranks = ranks
        self._next_save = time.monotonic() + INTERVAL_SECONDS
        self._signal: signal.Signals | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(signum) != signal.SIG_IGN:  # nohup ignores SIGHUP; respect that
                self._handlers[signum] = signal.signal(signum, self._note_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        if kind is None and self._ranks.rank == 0 and self._signal:  # it came after the last step
            os.kill(os.getpid(), self._signal)

    def restore(self, state: State) -> None:
        """Continue from the checkpoint of a training with the same fingerprint, if there is one."""
        is_first, saved = self._ranks.rank == 0, b""
        if is_first and self._path.exists():
            saved = self._path.read_bytes()
            if saved[:32] != self._digest(saved[32:]):
                print(f"train: {self._path} is damaged. Training starts anew.", file=sys.stderr)
                saved = b""
        content = self._ranks.broadcast(saved[32:])
        if content:
            state.restore(content)
            if is_first:
                print(f"train: resumed at {state}", flush=True)

    def save_if_due(self, state: State) -> None:
        """Save every few seconds; after a signal, save and end this process by the signal."""
        start = time.monotonic()
        if self._ranks.rank > 0 or not (self._signal or start >= self._next_save):
            return
        outcome, seconds = f"the next run goes on from {state}", RETRY_SECONDS
        try:
            content = state.to_bytes()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft = self._path.with_suffix(f".pt.{os.getpid()}")  # the same training may run twice
            write_aside(draft, self._digest(content) + content)
            draft.replace(self._path)
            seconds = max(INTERVAL_SECONDS, (time.monotonic() - start) / MAX_SAVING_FRACTION)
        except OSError as error:  # such as a full disk
            outcome = f"{self._path} cannot be written: {error.strerror}"
            print(f"train: {outcome}. Training goes on.", file=sys.stderr)
        self._next_save = start + seconds
        if self._signal:
            signal.signal(self._signal, signal.SIG_DFL)
            with suppress(OSError):  # the terminal may be gone
                print(f"\ntrain: stopped by {self._signal.name}; {outcome}", flush=True)
            os.kill(os.getpid(), self._signal)

    def delete(self) -> None:
        """Delete the checkpoint, and those that nobody has continued for 30 days."""
        for path in self._path.parent.glob("*.pt*"):  # and drafts of killed processes
            with suppress(FileNotFoundError):
                is_old = time.time() - path.stat().st_mtime > KEPT_SECONDS
                if is_old or self._path.name in path.name:
                    path.unlink()

    def _note_signal(self, signum: int, _frame: FrameType | None) -> None:
        """Remember the signal; a second Ctrl-C ends the process at once."""
        self._signal = signal.Signals(signum)
        if signum == signal.SIGINT and self._ranks.num_ranks == 1:  # torchrun sends a second one
            signal.signal(signum, signal.SIG_DFL)

    def _digest(self, content: bytes) -> bytes:
        return hashlib.sha256(self._fingerprint + content).digest()
