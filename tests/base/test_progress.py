import itertools
import sys

from stages.base import progress as module
from stages.base.progress import Progress


def work(num_rows, first=0, **options):
    with Progress("train", num_rows, first, **options) as progress:
        for _ in range(first, num_rows):
            progress.add(1)


def test_short_work_prints_nothing_without_a_terminal(capsys):
    work(5)
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_few_plain_lines(capsys, monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    work(1000, 900)
    assert capsys.readouterr().out.splitlines() == [
        "train: 902 rows (90%), 1 rows/s, about 0:01:38 left",
        "train: 904 rows (90%), 1 rows/s, about 0:01:36 left",
        "train: 908 rows (91%), 1 rows/s, about 0:01:32 left",
        "train: 916 rows (92%), 1 rows/s, about 0:01:24 left",
        "train: 932 rows (93%), 1 rows/s, about 0:01:08 left",
        "train: 964 rows (96%), 1 rows/s, about 0:00:36 left",
    ]


def test_work_of_days_prints_a_line_every_five_minutes(capsys, monkeypatch):
    seconds = iter(range(0, 10**9, 100))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    work(10_000)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: 1 rows (0%), 0 rows/s, about 11 days, 13:45:00 left"
    rows = [int(line.split()[1].replace(",", "")) for line in lines]
    assert {later - earlier for earlier, later in itertools.pairwise(rows)} <= {1, 2, 3}
    assert rows[-1] > 9_990


def test_a_long_step_is_followed_by_no_burst_of_lines(capsys, monkeypatch):
    seconds = iter([0, 3600, *range(3601, 4000)])
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    work(400)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_work_that_is_not_shown_prints_nothing(capsys, monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    work(100, is_shown=False)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar_for_long_work(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "FIRST_LINE_SECONDS", 0.0)
    work(3)
    assert "train: " in capsys.readouterr().err
