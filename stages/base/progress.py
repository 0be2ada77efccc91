"""Progress of long work: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import Self, TextIO

from tqdm import tqdm

FIRST_LINE_SECONDS = 2.0
MAX_SILENCE_SECONDS = 300.0


@dataclass
class Progress:
    """Show how many rows are done, how fast, and how much time is left.

    Without a terminal, print a line after 2, 4, 8, … seconds, and later every five minutes. Any
    thread may call ``add``.
    """

    label: str
    total: float
    first: float = 0
    is_shown: bool = True
    file: TextIO | None = None  # None: standard output

    def __post_init__(self) -> None:
        self._done, self._lock = self.first, Lock()
        self._start, self._next_line_seconds = time.monotonic(), FIRST_LINE_SECONDS
        self._bar = None
        if self.is_shown and sys.stderr.isatty():
            self._bar = tqdm(
                desc=self.label,
                initial=self.first,
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
        self.total = total or self.total
        self._done = min(done, self.total)
        if self._bar is not None:
            self._bar.desc, self._bar.total = self.label, self.total
            self._bar.update(self._done - self._bar.n)
        elif self.is_shown and self.first < self._done < self.total:
            self._print_if_due(time.monotonic() - self._start)

    def _print_if_due(self, seconds: float) -> None:
        if seconds >= self._next_line_seconds:
            self._next_line_seconds = seconds + min(seconds, MAX_SILENCE_SECONDS)
            rate = (self._done - self.first) / seconds
            left = timedelta(seconds=round((self.total - self._done) / rate))
            share = f"{self._done:,.0f} rows ({self._done / self.total:.0%})"
            text = f"{self.label}: {share}, {rate:,.0f} rows/s, about {left} left"
            print(text, file=self.file, flush=True)
