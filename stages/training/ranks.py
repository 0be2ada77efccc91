"""The ranks: processes that torchrun starts, on one host or several. They change no bit."""

import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from stages.base.errors import UserError
from stages.base.threads import Item
from stages.rows.ordered_sum import NUM_GROUPS, Vector, add_groups, groups, sum_groups

# A large network has fewer groups: what the ranks exchange is some numbers for each of its weights.
MIN_GROUPS, MAX_SHARED_VALUES = 8, 2**20
SILENCE_SECONDS = 60  # of a host's kernel, which answers however long a step takes


@dataclass(frozen=True)
class Ranks:
    """The number of this rank, from 0, and how many ranks there are."""

    rank: int = 0
    num_ranks: int = 1

    def ordered_sum(
        self, vector_of: Callable[[Item], Vector], items: Sequence[Item], size: int
    ) -> Vector:
        """Return the sum over all items, in one order; every rank gets the same bits.

        A rank computes whole groups, and has zeros in place of the others'. Adding zeros changes no
        bit, but for the sign of zero, which the sum does not keep.
        """
        all_groups = groups(items, max(MIN_GROUPS, min(NUM_GROUPS, MAX_SHARED_VALUES // size)))
        numbers = range(len(all_groups))
        sums = sum_groups(vector_of, all_groups, numbers[self.rank :: self.num_ranks])
        if self.num_ranks > 1:
            shared = np.zeros((len(all_groups), size))
            for number, vector in sums.items():
                shared[number] = vector
            distributed.all_reduce(torch.from_numpy(shared))
            sums = dict(enumerate(shared))
        return add_groups(sums)

    def meet(self) -> None:
        """Wait for all ranks; if one has ended, this one ends too."""
        if self.num_ranks > 1:
            distributed.barrier()

    def broadcast(self, content: bytes) -> bytes:
        """Return rank 0's ``content``, in every rank."""
        if self.num_ranks == 1:
            return content
        contents = [content]
        distributed.broadcast_object_list(contents)
        return contents[0]

    def require_equal(self, digests: Mapping[str, bytes]) -> None:
        """Check that all ranks have the same digests.

        Raises:
            UserError: In every rank; it names what differs.
        """
        if self.num_ranks == 1:
            return
        all_ranks: list[tuple[str, dict[str, bytes]]] = [("", {})] * self.num_ranks
        distributed.all_gather_object(all_ranks, (socket.gethostname(), dict(digests)))
        first_host, first_digests = all_ranks[0]
        faults = [
            f"train: rank {rank} (on {host}) and rank 0 (on {first_host}) differ in the {name}."
            " Make it the same on all hosts."
            for rank, (host, theirs) in enumerate(all_ranks)
            for name, digest in theirs.items()
            if digest != first_digests[name]
        ]
        if faults:
            raise UserError("\n".join(faults))


def start_ranks(module: str) -> None:
    """If TORCHRUN is set, replace this process by torchrun with these options."""
    text = os.environ.get("TORCHRUN")
    if text and "RANK" not in os.environ:
        try:
            options = shlex.split(text)
        except ValueError as error:
            raise UserError(f"TORCHRUN is not a command line: {error}. Got: {text}") from None
        arguments = ["-m", "torch.distributed.run", *options, "-m", module]
        os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 (our own interpreter)


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Connect to the other ranks; without torchrun there is one rank and nothing is started.

    The ranks exchange sums in the hosts' memory. This is why gloo serves every device.
    """
    if "RANK" not in os.environ:
        yield Ranks()
        return
    try:
        distributed.init_process_group("gloo")
        _end_silent_connections()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            "train: RANK is set, but the other ranks cannot be reached. Start this stage with"
            f" torchrun, or unset RANK. ({error})"
        ) from None
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise UserError(
            "train: another rank has ended, or its host does not answer. See its message."
            f" ({error})"
        ) from None
    finally:
        distributed.destroy_process_group()


def _end_silent_connections() -> None:
    """Let Linux end the connections to a host that is cut off; gloo alone waits for 30 minutes."""
    seconds = SILENCE_SECONDS // 5
    for path in Path("/proc/self/fd").glob("*"):
        if path.is_socket():
            with suppress(OSError), socket.socket(fileno=os.dup(int(path.name))) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (
                    (socket.TCP_KEEPIDLE, seconds),
                    (socket.TCP_KEEPINTVL, seconds),
                    (socket.TCP_USER_TIMEOUT, 1000 * SILENCE_SECONDS),
                ):
                    connection.setsockopt(socket.IPPROTO_TCP, option, value)
