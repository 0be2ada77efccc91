"""How far a long work is: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

FIRST_LINE_SECONDS = 5.0


def progress(label: str, total: int, *, first: int = 0, is_shown: bool = True) -> Iterator[int]:
    """Count from ``first`` to ``total - 1``; plain lines come after 5, 10, 20, 40, … seconds."""
    counts = range(first, total)
    if not is_shown:
        yield from counts
        return
    if sys.stderr.isatty():
        yield from tqdm(counts, desc=label, initial=first, total=total, leave=False)
        return
    start = time.monotonic()
    next_line_seconds = FIRST_LINE_SECONDS
    for done in counts:
        elapsed_seconds = time.monotonic() - start
        if elapsed_seconds >= next_line_seconds and done > first:
            left_seconds = elapsed_seconds / (done - first) * (total - done)
            print(f"{label}: {done} of {total}, about {left_seconds:.0f} s left", flush=True)
            next_line_seconds = 2 * elapsed_seconds
        yield done
