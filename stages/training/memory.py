"""How much memory this process may still use; this decides what is kept, but no result."""

import os
import resource
from pathlib import Path

import torch

SYSTEM_FILES = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def available_bytes(device: torch.device) -> int:
    """Return the free memory of the device; on the host also within this process's limits."""
    if device.type in {"cuda", "xpu"}:
        free, _ = torch.accelerator.get_memory_info(device)
    else:
        free = min(_system(), _address_space(), *_cgroups())
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # by torchrun


def _system() -> int:
    return _number(SYSTEM_FILES / "meminfo", "MemAvailable:") * 1024


def _address_space() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _number(SYSTEM_FILES / "self/status", "VmSize:") * 1024
    return _system() if limit == resource.RLIM_INFINITY else limit - used


def _cgroups() -> list[int]:
    """Return what control groups of both versions leave; the file cache does not count as used."""
    free = []
    for line in _read_text(SYSTEM_FILES / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            mount, limit_name, used_name = CGROUPS / "memory", "limit_in_bytes", "total_rss"
        elif not controllers:
            mount, limit_name, used_name = CGROUPS, "max", "anon"
        else:
            continue
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            limit = _read_text(folder / f"memory.{limit_name}").strip()
            if folder.is_relative_to(mount) and limit.isdecimal():
                free.append(int(limit) - _number(folder / "memory.stat", used_name))
    return free


def _number(path: Path, name: str) -> int:
    """Return the number after ``name`` at the start of a line; 0 if there is none."""
    lines = (line.split() for line in _read_text(path).splitlines())
    return next((int(fields[1]) for fields in lines if fields and fields[0] == name), 0)


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
