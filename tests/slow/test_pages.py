"""The commands of README.md and of the pages in docs/, run as printed, print what the pages say."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, command, copy_project

README = (ROOT / "README.md").read_text()
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
REFUSALS = ("must be", "Automatic merge failed", "is worse")


def sessions(page: str) -> list[tuple[str, list[str]]]:
    """Every command of a page's console blocks, and the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
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


def link_environment(folder: Path) -> Path:
    """Make this environment the project's .venv, as `make` has installed it."""
    assert Path(sys.prefix, "tested").exists(), "`make test` makes the environment"
    (folder / ".venv").symlink_to(sys.prefix)
    for name, value in (("name", "Test"), ("email", "test@localhost")):
        command(folder, "git", "config", f"user.{name}", value)
    for path in folder.glob("requirements*.txt"):
        os.utime(path, (0, 0))  # so that `make` does not make this environment anew under our feet
    return folder


def run_sessions(folder: Path, page: str) -> None:
    """Run a page's commands in a project, and compare what they print."""
    for line, expected in sessions(page):
        result = command(folder, "bash", "-c", f"{line} 2>&1")
        assert matches(expected, result.stdout.splitlines()), f"{line}\n{result.stdout}"
        is_refusal = any(words in "".join(expected) for words in REFUSALS)
        assert (result.returncode == 0) != is_refusal, result.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return link_environment(copy_project(tmp_path_factory.mktemp("clone") / "project"))


def test_the_readmes_commands_print_what_it_says(clone):
    assert len(sessions(README)) >= 8
    run_sessions(clone, README)
    assert command(clone, "make", "run").stdout.count("didn't change, skipping") == 4


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_commands_print_what_it_says(finished, tmp_path, page):
    text = (ROOT / "docs" / page).read_text()
    if page == "extending.md":
        pytest.skip("test_networks.py runs its blocks, in the order of the page")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    if not (sessions(text) or snippets):
        pytest.skip("the page has no commands")
    folder = link_environment(shutil.copytree(finished, tmp_path / "clone/project"))
    for snippet in snippets:
        result = command(folder, "python", "-c", snippet)
        assert result.returncode == 0, result.stderr
        assert result.stdout == "tensor([[0.6491]])\n"
    run_sessions(folder, text)


def test_the_readme_is_short_and_links_to_every_page():
    assert len(README.splitlines()) <= 260
    assert {*re.findall(r"\]\(docs/([a-z]+\.md)\)", README)} == {*PAGES}


def test_the_readme_names_every_room():
    for path in (ROOT / "stages").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"| `stages/{path.name}` |" in README


def test_every_link_of_a_page_leads_somewhere():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"


def test_make_help_lists_every_command(clone):
    printed = command(clone, "make", "help").stdout
    for target in (
        "help", "run", "pull", "compare", "sweep", "lint", "test", "test-all", "verify", "faults",
        "bench",
    ):  # fmt: skip
        assert re.search(rf"^make {target}\t\S", printed, re.MULTILINE)
