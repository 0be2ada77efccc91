"""Three hosts on one machine: namespaces of Linux, each with its own network, name and processes.

The machine's own network does not change, and all is gone when the hosts' first processes end. It
needs no root where a user may make namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conftest import user_environment

NAMES = ("host1", "host2", "host3")
NETWORK = "10.0.0"
MAX_FRAME_BYTES = 60_000  # of the slow switch: Python passes few frames a second
USER = [] if os.geteuid() == 0 else ["--user"]
BOOT = """
hostname "$0" && mount --bind "$1" /etc/hosts && ip link set lo up && echo ready &&
exec cat
"""


class Host:
    """A host, or the switch between the hosts; its processes end with its first one.

    Raises:
        PermissionError: If this user may not make namespaces, or `ip` is missing.
    """

    def __init__(self, name: str, folder: Path, switch: "Host | None" = None) -> None:
        self.name, self.folder, self.switch = name, folder, switch
        user = [*USER, "--map-root-user"] if USER and not switch else []
        spaces = ["--net", "--uts", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]
        words = ["unshare", *user, *spaces, "sh", "-c", BOOT, name, str(folder.parent / "hosts")]
        self.boot = subprocess.Popen(
            [*(switch.inside() if switch else []), *words],
            stdin=subprocess.PIPE,  # it closes when this process ends, and the host ends
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.boot.stdout.readline() != "ready\n":
            raise PermissionError(self.boot.communicate()[1].strip())

    def inside(self, *spaces: str) -> list[str]:
        """The words before a command that runs on this host."""
        user = [*USER, "--preserve-credentials"] if USER else []
        return ["nsenter", f"--target={self.boot.pid}", *user, *spaces, "--"]

    def ip(self, *words: str) -> str:
        """Run `ip` in the host's network; return what it prints."""
        words = (*self.inside("--net"), "ip", *words)
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in the host's folder, as a user would."""
        processes = f"--pid=/proc/{self.boot.pid}/ns/pid_for_children"
        spaces = ["--net", "--uts", "--mount", processes, f"--wdns={self.folder}"]
        return subprocess.Popen(
            [*self.inside(*spaces), *words],
            env=user_environment() | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def sent_bytes(self) -> int:
        """What this host has sent through its network card."""
        [link] = json.loads(self.ip("-s", "-json", "link", "show", "eth0"))
        return link["stats64"]["tx"]["bytes"]

    def cut_off(self) -> None:
        """Pull the cable."""
        self.switch.ip("link", "set", self.name, "down")

    def kill(self) -> None:
        """End all processes of this host at once."""
        self.boot.kill()
        self.boot.communicate()


@contextmanager
def three_hosts(folder: Path, project: Path, delay_seconds: float = 0) -> Iterator[list[Host]]:
    """Three hosts, each with its own copy of a project, and a switch that may delay all frames."""
    addresses = {name: f"{NETWORK}.{number}" for number, name in enumerate(NAMES, 1)}
    lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
    (folder / "hosts").write_text("\n".join(lines) + "\n")
    with ExitStack() as stack:
        switch = Host("switch", folder / "switch")
        stack.callback(switch.kill)
        switch.ip("link", "add", "bridge", "type", "bridge")
        switch.ip("link", "set", "bridge", "up")
        if delay_seconds:
            program = [sys.executable, str(Path(__file__).with_name("slow_switch.py"))]
            words = [*switch.inside("--net"), *program, str(delay_seconds), *NAMES]
            slow_switch = subprocess.Popen(words, stdout=subprocess.PIPE)
            stack.callback(slow_switch.communicate)
            stack.callback(slow_switch.kill)
            slow_switch.stdout.readline()  # it has made its ports
        hosts = []
        for name, address in addresses.items():
            host = Host(name, Path(shutil.copytree(project, folder / name)), switch)
            stack.callback(host.kill)
            hosts.append(host)
            pid = str(host.boot.pid)
            if delay_seconds:
                switch.ip("link", "set", name, "netns", pid, "name", "eth0")
                host.ip("link", "set", "eth0", "mtu", str(MAX_FRAME_BYTES))
            else:
                cable = ["type", "veth", "peer", "name", "eth0", "netns", pid]
                switch.ip("link", "add", name, *cable)
                switch.ip("link", "set", name, "master", "bridge", "up")
            host.ip("address", "add", f"{address}/24", "dev", "eth0")
            host.ip("link", "set", "eth0", "up")
        yield hosts


def by_number(num_hosts, number):
    """The options of docs/scale.md."""
    return (
        f"--nnodes={num_hosts} --node-rank={number} --nproc-per-node=1"
        " --master-addr=host1 --master-port=29500"
    )


def by_name(num_hosts, _number):
    """The options of docs/scale.md for hosts that find their numbers themselves."""
    return (
        f"--nnodes={num_hosts} --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=host1:29400"
    )


def start(hosts, options=by_number):
    """Start DVC on the first host and torchrun on the others, with other numbers of threads."""
    processes = []
    for number, host in enumerate(hosts):
        words = options(len(hosts), number)
        environment = {"OMP_NUM_THREADS": str(number + 1), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        if number == 0:
            process = host.start("dvc", "repro", "train", TORCHRUN=words, **environment)
        else:
            process = host.start("torchrun", *words.split(), "-m", "stages.train", **environment)
        processes.append(process)
    return processes
