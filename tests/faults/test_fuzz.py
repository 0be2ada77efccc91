"""A hundred damaged inputs of each kind; `make faults` tries thousands."""

import sys

import pytest

from tests.conftest import command
from tests.faults.fuzz import BASES


@pytest.mark.parametrize("kind", BASES)
def test_any_input_gives_a_right_result_or_one_sentence(finished, kind):
    arguments = [sys.executable, "tests/faults/fuzz.py", kind, "100"]
    result = command(finished, *arguments, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"{kind}: ")
