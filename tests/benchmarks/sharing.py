"""Push and pull 1 GB of prepared rows over S3 and SSH on loopback, beside plain copies.

Run it in the project's folder: python tests/benchmarks/sharing.py
"""

import getpass
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.servers import CREDENTIALS, SSHServer, s3_server, ssh_server

PARAMS = {"rows": "62500000", "dtype": "float64"}  # 16 bytes a row
RUNS = 3
Action = Callable[[], None]
Actions = dict[str, tuple[Action, Action]]  # by name: a preparation, and what is timed


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as name, s3_server() as s3:
        folder = Path(name)
        project = prepare(folder / "project")
        size = sum(path.stat().st_size for path in (project / "data/prepared").iterdir())
        print(f"{size / 1e9:.2f} GB in data/prepared\n")
        (folder / "ssh").mkdir()
        with ssh_server(folder / "ssh") as server:
            for actions in (s3_actions(folder, s3), ssh_actions(folder, server)):
                times: dict[str, list[float]] = {action: [] for action in actions}
                for _ in range(RUNS):
                    for action, (before, act) in actions.items():
                        before()
                        start = time.perf_counter()
                        act()
                        times[action].append(time.perf_counter() - start)
                for action, seconds in times.items():
                    print(f"{action}: {size / 1e6 / statistics.median(seconds):.0f} MB/s")
                print()


def nothing() -> None:
    pass


def run(folder: Path, *command: str) -> None:
    environment = os.environ | CREDENTIALS
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def prepare(project: Path) -> Path:
    """Clone the project, and prepare a large table in the clone."""
    run(Path(), "git", "clone", "--quiet", ".", str(project))
    options = [text for name, value in PARAMS.items() for text in ("-S", f"prepare.{name}={value}")]
    run(project, "dvc", "exp", "run", *options, "prepare")
    return project


def push_and_pull(folder: Path, remote_is_empty: Action, address: str, *settings: str) -> Actions:
    """Push with DVC to an empty remote, and pull into a clone with an empty cache."""
    project, other = folder / "project", folder / "other"
    run(project, "dvc", "remote", "add", "--quiet", "--force", "--default", "shared", address)
    for name, value in zip(settings[::2], settings[1::2], strict=True):
        run(project, "dvc", "remote", "modify", "shared", name, value)
    run(project, "dvc", "remote", "modify", "shared", "verify", "true")
    config = (project / ".dvc/config").read_text()

    def push() -> None:
        (project / ".dvc/config").write_text(config)
        run(project, "dvc", "push", "--quiet", "prepare")

    def pull() -> None:
        run(other, "dvc", "pull", "--quiet", "prepare")

    def clone() -> None:
        shutil.rmtree(other, ignore_errors=True)
        run(folder, "git", "clone", "--quiet", str(project), str(other))
        shutil.copy(project / "dvc.lock", other)
        (other / ".dvc/config").write_text(config)

    return {"dvc push": (remote_is_empty, push), "dvc pull": (clone, pull)}


def s3_actions(folder: Path, s3: Any) -> Actions:
    """DVC, and boto3's transfers, which `aws s3 cp` uses too."""
    files = sorted((folder / "project/data/prepared").iterdir())

    def empty() -> None:
        for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", []):
            s3.delete_object(Bucket="bucket", Key=entry["Key"])

    def upload() -> None:
        for path in files:
            s3.upload_file(str(path), "bucket", path.name)

    def download() -> None:
        for path in files:
            s3.download_file("bucket", path.name, str(folder / path.name))

    endpoint = ("endpointurl", s3.meta.endpoint_url)
    return push_and_pull(folder, empty, "s3://bucket/storage", *endpoint) | {
        "upload_file": (empty, upload), "download_file": (nothing, download)
    }  # fmt: skip


def ssh_actions(folder: Path, server: SSHServer) -> Actions:
    """DVC, and `scp`."""
    host = f"{getpass.getuser()}@127.0.0.1"
    copied = folder / "copied"
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder}/known"]
    scp = ["scp", "-q", "-r", "-i", str(server.key), "-P", str(server.port), *options]

    def empty() -> None:
        for path in (folder / "storage", copied, folder / "copied again"):
            shutil.rmtree(path, ignore_errors=True)

    def upload() -> None:
        run(folder, *scp, "project/data/prepared", f"{host}:{copied}")

    def download() -> None:
        run(folder, *scp, f"{host}:{copied}", "copied again")

    address = f"ssh://{host}:{server.port}{folder}/storage"
    return push_and_pull(folder, empty, address, "keyfile", str(server.key)) | {
        "scp there": (empty, upload), "scp back": (nothing, download)
    }  # fmt: skip


if __name__ == "__main__":
    main()
