"""A hundred inputs of each kind that nobody meant; `make faults` tries thousands."""

import sys

import pytest

from tests.conftest import command
from tests.faults.fuzz import BASES


@pytest.mark.parametrize("kind", BASES)
def test_any_input_gives_a_right_result_or_one_sentence(finished, kind):
    words = [sys.executable, "tests/faults/fuzz.py", kind, "100"]
    end = command(finished, *words, timeout=300)
    assert end.returncode == 0, end.stdout + end.stderr
    assert end.stdout.startswith(f"{kind}: ")
