"""Progress of long work: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from datetime import timedelta
from threading import Lock
from typing import Self, TextIO

from tqdm import tqdm

FIRST_LINE_SECONDS = 2.0
MAX_SILENCE_SECONDS = 300.0


class Progress:
    """Show how many rows are done, how fast, and how much time is left.

    Without a terminal, print a line after 2, 4, 8, … seconds, and later every five minutes. Any
    thread may call ``add``.
    """

    def __init__(
        self,
        label: str,
        total: float,
        first: float = 0,
        *,
        is_shown: bool = True,
        file: TextIO | None = None,
    ) -> None:
        self.label = label
        self._total, self._first, self._done = total, first, first
        self._start, self._next_line_seconds = time.monotonic(), FIRST_LINE_SECONDS
        self._lock = Lock()
        self._is_shown, self._file = is_shown, file  # None: standard output
        self._bar = None
        if is_shown and sys.stderr.isatty():
            self._bar = tqdm(
                desc=label,
                initial=first,
                unit=" rows",
                unit_scale=True,
                leave=False,
                delay=FIRST_LINE_SECONDS,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, num_rows: float) -> None:
        """Add rows that are done."""
        with self._lock:
            self.update(self._done + num_rows)

    def update(self, done: float, total: float | None = None) -> None:
        """Set how many rows are done and, if the estimate has changed, how many there are."""
        self._total = total or self._total
        self._done = min(done, self._total)
        if self._bar is not None:
            self._bar.desc, self._bar.total = self.label, self._total
            self._bar.update(self._done - self._bar.n)
        elif self._is_shown and self._first < self._done < self._total:
            elapsed_seconds = time.monotonic() - self._start
            if elapsed_seconds >= self._next_line_seconds:
                silence_seconds = min(elapsed_seconds, MAX_SILENCE_SECONDS)
                self._next_line_seconds = elapsed_seconds + silence_seconds
                rate = (self._done - self._first) / elapsed_seconds
                left = timedelta(seconds=round((self._total - self._done) / rate))
                print(
                    f"{self.label}: {self._done:,.0f} rows ({self._done / self._total:.0%}),"
                    f" {rate:,.0f} rows/s, about {left} left",
                    file=self._file,
                    flush=True,
                )
