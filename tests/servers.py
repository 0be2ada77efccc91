"""Real servers on loopback: moto's of S3, and OpenSSH's with keys of its own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from moto.server import ThreadedMotoServer

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


class SSHServer(NamedTuple):
    """The server's ports, and the file of a key that it accepts."""

    port: int
    read_only_port: int
    key: Path


@contextmanager
def s3_server() -> Iterator[Any]:
    """A client of an S3 server with an empty bucket `bucket`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="bucket")
    try:
        yield client
    finally:
        server.stop()


@contextmanager
def ssh_server(folder: Path) -> Iterator[SSHServer]:
    """An SSH server whose keys and settings stand in ``folder``."""
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(words, check=True)
    with socket.socket() as free, socket.socket() as also_free:
        for taken in (free, also_free):
            taken.bind(("127.0.0.1", 0))
        port, read_only_port = free.getsockname()[1], also_free.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server asks for it
    settings = f"""
        Port {port}
        Port {read_only_port}
        ListenAddress 127.0.0.1
        HostKey {folder}/host
        AuthorizedKeysFile {folder}/user.pub
        PidFile none
        StrictModes no
        UsePAM no
        Subsystem sftp internal-sftp
        Match LocalPort {read_only_port}
            ForceCommand internal-sftp -R
    """
    (folder / "settings").write_text(settings)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "settings"], stderr=log)
    try:
        deadline = time.monotonic() + 10
        while (folder / "log").read_text().count("Server listening") < 2:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield SSHServer(port, read_only_port, folder / "user")
    finally:
        server.terminate()
        server.wait()
