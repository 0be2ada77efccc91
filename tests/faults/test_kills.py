"""Twenty kills of a training; `make faults` kills the whole pipeline hundreds of times."""

from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from tests.faults.kills import calm_run, kill_and_run_again


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    return calm_run(tmp_path_factory.mktemp("kills"), 6_000, "train")


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_a_run_killed_at_any_instant_and_repeated_gives_the_same_bytes(calm, tmp_path, seed):
    kill_and_run_again(calm, tmp_path / "project", seed, (SIGKILL, SIGKILL, SIGTERM, SIGINT))
