"""The threads that work on blocks. Their number changes the time, never a result."""

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def num_threads() -> int:
    """The first number in ``OMP_NUM_THREADS``, else the number of CPUs that this process may use.

    As OpenMP does, ignore what is not a list of whole numbers greater than 0, such as ``4,2``.
    """
    asked = re.fullmatch(r"\s*0*([1-9]\d*)\s*(,.*)?", os.environ.get("OMP_NUM_THREADS", ""))
    if asked:
        return int(asked[1])
    return (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()) or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads(), initializer=_use_one_thread)


def _use_one_thread() -> None:
    """Keep each tensor operation in this thread; MKL has one number of threads per thread."""
    torch: Any = sys.modules.get("torch")  # some stages do not import it
    if torch:
        torch.set_num_threads(1)


def in_threads(work: Callable[[Iterator[Item]], Result], items: Sequence[Item]) -> list[Result]:
    """Call ``work`` once in each thread; all calls take their items from one shared iterator."""
    shared = iter(items)
    num_calls = min(num_threads(), len(items))
    if num_calls <= 1:
        return [work(shared)]
    return [call.result() for call in [_pool().submit(work, shared) for _ in range(num_calls)]]


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], num_ahead: int | None = None
) -> Iterator[Result]:
    """Yield ``work(item)`` in order, computed ``num_ahead`` items ahead (two for each thread)."""
    max_ahead = num_ahead or 2 * num_threads()
    ahead: deque[Future[Result]] = deque()
    for item in items:
        ahead.append(_pool().submit(work, item))
        if len(ahead) > max_ahead:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()
