import re

import pytest
import tqdm

from stages.base import progress as module
from stages.base.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Let each look at the time take a second."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(tqdm.tqdm, "_time", staticmethod(lambda: next(seconds)), raising=False)
    monkeypatch.setattr(tqdm.std, "time", lambda: next(seconds))


def work(num_rows, first=0, **options):
    with Progress("train", num_rows, first, **options) as progress:
        for _ in range(first, num_rows):
            progress.add(1)


def test_short_work_prints_nothing(capsys):
    work(5)
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_line_each_minute_in_a_log(capsys, clock):
    work(1000, 900)
    printed = capsys.readouterr()
    lines = [line for line in printed.err.split("\r") if line.strip()]
    assert printed.out == ""
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("train:  96%|")
    assert "960/1.00k" in lines[0]


def test_a_terminal_shows_long_work_at_once(capsys, clock, monkeypatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    work(100)
    assert capsys.readouterr().err.count("train: ") > 90


def test_rows_that_are_counted_twice_do_not_pass_the_total(capsys, clock, monkeypatch):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("train", 10) as progress:
        for _ in range(3):
            progress.add(8)
        progress.update(5)
        progress.label = "train: epoch 2"
        progress.add(1)
    shown = capsys.readouterr().err
    assert all(float(done) <= 10 for done in re.findall(r"([\d.]+)/10", shown))
    assert "train: epoch 2:  60%|" in shown


def test_work_that_is_not_shown_prints_nothing(capsys, clock):
    work(1000, is_shown=False)
    assert capsys.readouterr() == ("", "")
