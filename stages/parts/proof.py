"""Proof, in a process of its own, that a released model predicts what the trained one does."""

import sys
from pathlib import Path

import torch

from stages.parts.errors import UserError
from stages.parts.files import PREPARED, WEIGHTS
from stages.parts.model import Model
from stages.parts.process import run
from stages.parts.split import Split


def main() -> None:
    test = Split(PREPARED / "test.parquet")
    split = test if test.num_rows else Split(PREPARED / "train.parquet")
    prove(Model.load(Path(sys.argv[1])), Model.load(WEIGHTS), split)
    print(
        f"save: loaded in a new process, the same predictions to the bit on {split.num_rows} rows"
    )


@torch.inference_mode()
def prove(released: Model, trained: Model, split: Split) -> None:
    """Compare the predictions on all rows of ``split``, bit by bit.

    Raises:
        UserError: If a row's predictions differ.
    """
    for block in range(split.num_blocks):
        inputs = torch.from_numpy(split.read(block))[:, :-1]
        if released(inputs).numpy().tobytes() != trained(inputs).numpy().tobytes():
            raise UserError(
                f"save: the released model predicts otherwise than the trained one on rows of"
                f" {split.path}. Run `dvc repro --force save`."
            )


if __name__ == "__main__":
    run(main)
