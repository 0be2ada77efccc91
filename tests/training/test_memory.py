import resource

import pytest
import torch

from stages.training import memory
from stages.training.memory import available_bytes

GIB = 2**30
CPU = torch.device("cpu")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB free, and no limit."""
    monkeypatch.setattr(memory, "SYSTEM_FILES", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {2**23} kB\n")
    (tmp_path / "proc/self/status").write_text(f"VmPeak: 9 kB\nVmSize:  {2**20} kB\n")
    return tmp_path


def group(machine, path, **files):
    folder = machine / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_without_limits_all_free_memory_is_available(machine):
    assert available_bytes(CPU) == 8 * GIB


def test_a_system_without_proc_has_nothing_available(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "SYSTEM_FILES", tmp_path / "none")
    assert available_bytes(CPU) == 0


@pytest.mark.parametrize("limited", ["a/b", "a", ""])
def test_a_control_group_or_a_group_above_it_limits_the_memory(machine, limited):
    (machine / "proc/self/cgroup").write_text("0::/a/b\n")
    group(machine, "a/b", max="max", stat=f"anon {GIB}")
    group(machine, "a", max="max", stat=f"anon {GIB}")
    group(machine, limited, max=3 * GIB, stat=f"anon {GIB}\nfile {GIB}")
    assert available_bytes(CPU) == 2 * GIB


def test_a_control_group_of_version_1_limits_the_memory(machine):
    (machine / "proc/self/cgroup").write_text("5:cpu:/\n4:memory:/job\n0::/\n")
    group(machine, "memory/job", limit_in_bytes=3 * GIB, stat=f"rss 1\ntotal_rss {GIB}")
    assert available_bytes(CPU) == 2 * GIB


def test_a_container_that_sees_other_paths_is_limited_by_its_root(machine):
    (machine / "proc/self/cgroup").write_text("0::/docker/abc\n")
    group(machine, "", max=GIB, stat="anon 0")
    assert available_bytes(CPU) == GIB


def test_a_limit_of_the_address_space_counts(machine, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4 * GIB, 4 * GIB))
    assert available_bytes(CPU) == 3 * GIB


def test_the_ranks_of_one_host_share_the_memory(machine, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_bytes(CPU) == 2 * GIB


def test_less_than_nothing_is_nothing(machine):
    (machine / "proc/self/cgroup").write_text("0::/a\n")
    group(machine, "a", max=GIB, stat=f"anon {2 * GIB}")
    assert available_bytes(CPU) == 0
