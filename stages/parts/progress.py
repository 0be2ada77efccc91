"""How far a long work is: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

FIRST_LINE_SECONDS = 5.0


def progress(label: str, total: int, *, is_shown: bool = True) -> Iterator[int]:
    """Count from 0 to ``total - 1``; the plain lines come after 5, 10, 20, 40, … seconds."""
    if not is_shown:
        yield from range(total)
        return
    if sys.stderr.isatty():
        yield from tqdm(range(total), desc=label, leave=False)
        return
    start = time.monotonic()
    next_line_seconds = FIRST_LINE_SECONDS
    for done in range(total):
        elapsed_seconds = time.monotonic() - start
        if elapsed_seconds >= next_line_seconds:
            left_seconds = elapsed_seconds / done * (total - done)
            print(f"{label}: {done} of {total}, about {left_seconds:.0f} s left", flush=True)
            next_line_seconds = 2 * elapsed_seconds
        yield done
