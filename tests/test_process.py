import errno

import pytest

from stages.parts.errors import UserError
from stages.parts.process import run


def refuse():
    raise UserError("params.yaml: `train.lr` must be greater than 0. Got 0.")


def no_space():
    raise OSError(errno.ENOSPC, "No space left on device", "models/x")


def bug():
    raise ZeroDivisionError


def test_what_a_user_can_cause_ends_with_its_sentence_and_status_1():
    with pytest.raises(SystemExit) as end:
        run(refuse)
    assert end.value.code == "params.yaml: `train.lr` must be greater than 0. Got 0."
    with pytest.raises(SystemExit) as end:
        run(no_space)
    assert end.value.code == (
        "models/x: No space left on device. Check the permissions and the free space."
    )


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run(bug)
