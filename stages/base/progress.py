"""Progress of long work: a bar on a terminal, the same line every minute in a log."""

import sys
from threading import Lock
from typing import Self

from tqdm import tqdm

FIRST_SECONDS = 2.0
REFRESH_SECONDS, LOG_SECONDS = 0.1, 60.0


class Progress:
    """Show on standard error how many rows are done, how fast, and how much time is left.

    Work of less than two seconds shows nothing. Any thread may call ``add``.
    """

    def __init__(self, label: str, total: float, first: float = 0, is_shown: bool = True) -> None:
        self.label, self._total, self._lock = label, total, Lock()
        self._bar = tqdm(
            total=total,
            initial=first,
            unit=" rows",
            unit_scale=True,
            leave=False,
            delay=FIRST_SECONDS,
            mininterval=REFRESH_SECONDS if sys.stderr.isatty() else LOG_SECONDS,
            disable=not is_shown,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, num_rows: float) -> None:
        """Add rows that are done."""
        with self._lock:
            self.update(self._bar.n + num_rows)

    def update(self, done: float, total: float | None = None) -> None:
        """Set how many rows are done and, if the estimate has changed, how many there are."""
        self._total = total or self._total
        self._bar.desc, self._bar.total = f"{self.label}: ", self._total
        self._bar.update(min(done, self._total) - self._bar.n)
