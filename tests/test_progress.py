import sys

from stages.parts import progress as module
from stages.parts.progress import progress


def test_short_work_prints_nothing_elsewhere_than_on_a_terminal(capsys):
    assert list(progress("train: epoch", 5)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_few_plain_lines(capsys, monkeypatch):
    seconds = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(seconds)))
    assert list(progress("train: epoch", 100)) == list(range(100))
    assert capsys.readouterr().out.splitlines() == [
        "train: epoch: 4 of 100, about 120 s left",
        "train: epoch: 9 of 100, about 101 s left",
        "train: epoch: 19 of 100, about 85 s left",
        "train: epoch: 39 of 100, about 63 s left",
        "train: epoch: 79 of 100, about 21 s left",
    ]


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress("train: epoch", 3)) == [0, 1, 2]
    assert "train: epoch" in capsys.readouterr().err
