"""The README's commands, run as printed, print what the README says."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command, copy_project

README = (ROOT / "README.md").read_text()


def sessions() -> list[tuple[str, list[str]]]:
    """Every command of a console block, and the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the lines are the same; `…` stands for any lines, or for any text in a line."""
    pattern = "".join(
        r"(?:.*\n)*" if line == "…" else f"{re.escape(line)}\n".replace("…", ".*")
        for line in expected
    )
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed)) is not None


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone whose .venv is this environment, as `make test` has installed it."""
    assert Path(sys.prefix, "installed").exists(), "`make test` makes the environment"
    folder = copy_project(tmp_path_factory.mktemp("clone") / "project")
    (folder / ".venv").symlink_to(sys.prefix)
    for name, value in (("name", "Test"), ("email", "test@localhost")):
        command(folder, "git", "config", f"user.{name}", value)
    for path in folder.glob("requirements*.txt"):
        os.utime(path, (0, 0))  # so that `make` does not make this environment anew under our feet
    return folder


def test_the_readmes_commands_print_what_it_says(project):
    assert len(sessions()) >= 8
    for words, expected in sessions():
        end = command(project, "bash", "-c", f"{words} 2>&1")
        printed = end.stdout.splitlines()
        assert matches(expected, printed), f"{words}\n{end.stdout}"
        is_refusal = any(
            word in "".join(expected) for word in ("must be", "Automatic merge failed", "is worse")
        )
        assert (end.returncode == 0) != is_refusal, end.stdout
    for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        end = command(project, "python", "-c", snippet)
        assert end.stdout == "tensor([[0.6491]])\n", end.stderr
    assert command(project, "make", "run").stdout.count("didn't change, skipping") == 4


def test_the_readme_names_every_file_of_the_stages():
    for path in (ROOT / "stages").rglob("*.py"):
        assert re.search(rf"^ +{path.name} +\S", README, re.MULTILINE), path.name


def test_make_help_lists_every_command(project):
    printed = command(project, "make", "help").stdout
    for target in (
        "help",
        "run",
        "pull",
        "compare",
        "sweep",
        "test",
        "lint",
        "verify",
        "faults",
        "bench",
    ):
        assert re.search(rf"^make {target}\t\S", printed, re.MULTILINE)
