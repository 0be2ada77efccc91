"""Set aside a dvc.lock that DVC was killed in the middle of writing: it does not write it whole.

The next run writes a new one, from DVC's cache where the stages have run. The same for the file in
which DVC's processes note what they use, which tells nothing once they have been killed.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback

import json
import sys
import time
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

LOCK = Path("dvc.lock")
USED = Path(".dvc/tmp/rwlock")
WRITING_SECONDS = 1  # more than DVC takes


def main() -> None:
    if LOCK.exists() and not is_whole(LOCK.read_bytes()):
        damaged = LOCK.replace(".dvc.lock.old")
        sys.stderr.write(
            f"{LOCK} was not written to its end, and is now {damaged}; a new one is made.\n"
        )

    if not is_json():
        time.sleep(WRITING_SECONDS)
        if not is_json():
            USED.unlink()


def is_json() -> bool:
    """Whether no process was killed while it noted what it uses."""
    try:
        json.loads(USED.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


def is_whole(text: bytes) -> bool:
    """Whether no line, no key and no entry's last lines are missing."""
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
