"""Run every stage again from nothing, and compare all that is written with dvc.lock.

Works in a throw-away copy of the project's files, with an empty cache; the project is only read.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        copy_files(ROOT, copy)
        lock = (copy / "dvc.lock").read_text()
        outputs, expected = hashes(lock)
        in_git = {
            path: hashlib.md5((copy / path).read_bytes(), usedforsecurity=False).hexdigest()
            for path in outputs
            if (copy / path).is_file()
        }
        for words in (["git", "init", "--quiet"], ["dvc", "repro", "--force", "--no-run-cache"]):
            if subprocess.run(words, cwd=copy, check=False).returncode:
                sys.exit(f"verify: `{' '.join(words)}` failed in a clean copy; see above.")
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
    """Copy what Git tracks, and what it would track."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=source, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (source / name).exists():  # not deleted since
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def hashes(lock: str) -> tuple[set[str], dict[str, str]]:
    """The outputs that dvc.lock names, as wholes and file by file; and every path's MD5 there."""
    stages = yaml.safe_load(lock)["stages"].values()
    outputs = {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
    inputs = {dep["path"]: dep["md5"] for stage in stages for dep in stage["deps"]}
    folders = tuple(f"{path}/" for path in outputs)
    return {*outputs, *(path for path in inputs if path.startswith(folders))}, outputs | inputs


if __name__ == "__main__":
    main()
