import os
import re
import threading
import time

import pytest

from stages.base.threads import in_order, in_threads, num_threads
from tests.conftest import ROOT, command

THREADED_PRODUCT = """
import torch
from stages.model.device import set_numerics
from stages.base.threads import in_threads
set_numerics("native")
in_threads(lambda shared: [torch.rand(500, 500) @ torch.rand(500, 500) for _ in shared], range(8))
"""


@pytest.fixture(autouse=True)
def fresh():
    num_threads.cache_clear()
    yield
    num_threads.cache_clear()


@pytest.mark.parametrize("text", ["3", " 3 ", "3,2", "3 , 2,1", "03"])
def test_the_first_number_of_omp_num_threads_is_the_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7))
    assert num_threads() == 3


@pytest.mark.parametrize("text", [None, "", " ", "0", "-3", "1.5", "3x", "many", ",3"])
def test_without_a_number_there_is_a_thread_for_each_cpu_of_the_process(monkeypatch, text):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if text is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7))
    assert num_threads() == 7


def test_shared_work_takes_every_item_once_on_several_threads(use_threads):
    use_threads(4)
    barrier = threading.Barrier(4, timeout=10)

    def work(shared):
        barrier.wait()
        return [(item, time.sleep(0.001)) for item in shared]

    taken = [item for results in in_threads(work, range(100)) for item, _ in results]
    assert sorted(taken) == list(range(100))


def test_results_come_in_order_and_only_a_few_are_computed_ahead(use_threads):
    use_threads(2)
    started = []

    def square(item):
        started.append(item)
        time.sleep(0.002 * (item % 3))
        return item * item

    results = in_order(square, range(50))
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 6
    assert list(results) == [item * item for item in range(1, 50)]


def test_a_matrix_product_in_a_thread_uses_that_thread_alone():
    environment = {"MKL_VERBOSE": "1", "OMP_NUM_THREADS": "3"}
    result = command(ROOT, "python", "-c", THREADED_PRODUCT, environment=environment)
    used = re.findall(r"SGEMM.*NThr:(\d+)", result.stdout)
    if not used:
        pytest.skip("this build of PyTorch has no MKL")
    assert set(used) == {"1"}
