"""Run every stage again from nothing, and compare all that is written with dvc.lock.

Works in a throw-away copy of the project's files, with an empty cache; the project is only read.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
# Not Git's variables, as a hook has them: they name the repository that is only to be read.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        copy_files(ROOT, copy)
        lock = (copy / "dvc.lock").read_text()
        (copy / "dvc.lock").unlink()  # nothing of it is taken for found
        outputs, expected = hashes(lock)
        git(copy, "init", "--quiet")
        in_git = {
            path: md5(copy / path)
            for path in outputs
            if not git(copy, "check-ignore", "--quiet", "--no-index", path)
        }
        words = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"]
        if subprocess.run(words, cwd=copy, env=ENVIRONMENT, check=False).returncode:
            sys.exit("verify: `dvc repro` failed in a clean copy; see above.")
        new_lock = (copy / "dvc.lock").read_text()
    new_outputs, found = hashes(new_lock)

    print(f"\n{'output':36} {'now':36} dvc.lock")
    for path in sorted(outputs | new_outputs):
        print(f"{path:36} {found.get(path, '-'):36} {expected.get(path, '-')}")
    differing = [
        path
        for path in sorted(expected | found)
        if not found.get(path) == expected.get(path) == in_git.get(path, found.get(path))
    ]
    if lock != new_lock or differing:
        sys.exit(f"verify: not as certified: {', '.join(differing) or 'parameters in dvc.lock'}.")
    print("verify: everything is as dvc.lock certifies")


def copy_files(source: Path, target: Path) -> None:
    """Copy what Git tracks, what it would track, and data/raw, whose large tables DVC tracks."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=source, env=ENVIRONMENT, check=True, capture_output=True)
    raw = [os.fsencode(path.relative_to(source)) for path in (source / "data/raw").rglob("*")]
    for name in map(os.fsdecode, {*listed.stdout.split(b"\0"), *raw} - {b""}):
        path, copy = source / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():  # and not deleted since
            shutil.copy2(path, copy)
        elif path.is_dir() and (path.is_symlink() or name.endswith("/")):  # another repository
            copy.symlink_to(path.resolve())


def git(folder: Path, *words: str) -> bool:
    """Run Git in ``folder``; tell whether it succeeded."""
    return not subprocess.run(["git", *words], cwd=folder, env=ENVIRONMENT, check=False).returncode


def md5(path: Path) -> str:
    """The hash that DVC uses; of a file that is not there, what no file has."""
    if not path.exists():
        return "missing"
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def hashes(lock: str) -> tuple[set[str], dict[str, str]]:
    """The outputs that dvc.lock names, as wholes and file by file; and every path's MD5 there."""
    stages = yaml.safe_load(lock)["stages"].values()
    outputs = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    inputs = {dep["path"]: dep["md5"] for stage in stages for dep in stage["deps"]}
    folders = tuple(f"{path}/" for path in outputs)
    return {*outputs, *(path for path in inputs if path.startswith(folders))}, outputs | inputs


if __name__ == "__main__":
    main()
