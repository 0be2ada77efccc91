import sys

from stages.parts import progress as module
from stages.parts.progress import Progress


def work(num_rows, first=0, **options):
    with Progress("train", num_rows, first, **options) as progress:
        for _ in range(first, num_rows):
            progress.add(1)


def test_short_work_prints_nothing_elsewhere_than_on_a_terminal(capsys):
    work(5)
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_few_plain_lines(capsys, monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    work(1000, 900)
    assert capsys.readouterr().out.splitlines() == [
        "train: 902 rows (90%), 1 rows/s, about 98 s left",
        "train: 904 rows (90%), 1 rows/s, about 96 s left",
        "train: 908 rows (91%), 1 rows/s, about 92 s left",
        "train: 916 rows (92%), 1 rows/s, about 84 s left",
        "train: 932 rows (93%), 1 rows/s, about 68 s left",
        "train: 964 rows (96%), 1 rows/s, about 36 s left",
    ]


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
