"""A switch that holds every frame back for some seconds.

python tests/slow/slow_switch.py SECONDS PORT [PORT …]. Its ports are network cards that it makes
(TAP devices), to be moved to the hosts. It stands in for `tc qdisc add … netem delay`, which not
every kernel has.
"""

import fcntl
import os
import struct
import sys
import time
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MAX_FRAME_BYTES = 2**16


def main() -> None:
    delay_seconds, names = float(sys.argv[1]), sys.argv[2:]
    ports = [new_port(name) for name in names]
    port_of: dict[bytes, int] = {}  # by the address of a host's card
    for port in ports:
        frames: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        Thread(target=receive, args=(port, frames, port_of, delay_seconds)).start()
        Thread(target=pass_on, args=(port, frames, port_of, ports)).start()
    print("ready", flush=True)


def new_port(name: str) -> int:
    port = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return port


def receive(port: int, frames: SimpleQueue, port_of: dict[bytes, int], delay: float) -> None:
    with suppress(OSError):  # until the host ends
        while True:
            frame = os.read(port, MAX_FRAME_BYTES)
            port_of[frame[6:12]] = port
            frames.put((time.monotonic() + delay, frame))


def pass_on(port: int, frames: SimpleQueue, port_of: dict[bytes, int], ports: list[int]) -> None:
    while True:
        due, frame = frames.get()
        time.sleep(max(0, due - time.monotonic()))
        known = port_of.get(frame[:6])
        for other in [known] if known else ports:
            with suppress(OSError):  # this host is not up yet
                if other != port:
                    os.write(other, frame)


if __name__ == "__main__":
    main()
