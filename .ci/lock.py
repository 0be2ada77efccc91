"""Set aside a dvc.lock that is incomplete, because DVC was killed while writing it.

The next run writes a new one, and takes outputs from DVC's cache where it can. The file in which
DVC's processes note what they use is deleted if it is incomplete.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: no traceback

import json
import sys
import time
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")
WRITING_SECONDS = 1  # more than DVC needs to write it


def main() -> None:
    if LOCK.exists() and not is_whole(LOCK.read_bytes()):
        damaged = LOCK.replace(".dvc.lock.old")
        sys.stderr.write(
            f"{LOCK} is incomplete, and is now {damaged}; the next run writes a new one.\n"
        )

    if not is_json():
        time.sleep(WRITING_SECONDS)
        if not is_json():
            RWLOCK.unlink()


def is_json() -> bool:
    """Tell whether the processes' file is complete, or does not exist."""
    try:
        json.loads(RWLOCK.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def is_whole(text: bytes) -> bool:
    """Tell whether no line and no key is missing at the end of a dvc.lock."""
    try:
        stages = COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text)).get("stages", {})
    except (yaml.YAMLError, Invalid):
        return False
    entries = [
        entry
        for stage in stages.values()
        for entry in stage.get("deps", []) + stage.get("outs", [])
    ]
    return text.endswith(b"\n") and all(
        "size" in entry and ("nfiles" in entry) == entry["md5"].endswith(".dir")
        for entry in entries
        if "md5" in entry
    )


if __name__ == "__main__":
    main()
