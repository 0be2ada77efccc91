from itertools import chain
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.model.model import Model
from stages.network import build_network
from stages.rows.split import Split, SplitWriter, Statistics, block_rows
from stages.training import batches as module
from stages.training.batches import WINDOW_BLOCKS, batches, block_size, load_rows
from tests.conftest import train_params

BLOCK, CPU = block_rows(2), torch.device("cpu")


class Numbers:
    """A split of one feature, the row's number, and a target half a unit above it."""

    features, path, block_rows = ["x"], None, BLOCK

    def __init__(self, num_rows):
        self.num_rows = num_rows
        self.num_blocks = -(-num_rows // BLOCK)

    def read_columns(self, block):
        numbers = np.arange(block * BLOCK, min((block + 1) * BLOCK, self.num_rows)) + 0.0
        return [numbers, numbers + 0.5]


def loaded(num_rows):
    return load_rows(
        Numbers(num_rows),
        Model(["x"], "y", train_params(hidden=[]), torch.float64),
        Path(gettempdir()),
    )


def drawn(num_rows, batch_size, seed=0, epoch=0):
    return [
        batch.inputs[:, 0].tolist()
        for batch in batches(loaded(num_rows), batch_size, seed, epoch, CPU)
    ]


@given(st.integers(1, 500), st.integers(1, 600), st.integers(0, 5))
def test_every_epoch_visits_each_row_once_in_batches_of_the_given_size(num_rows, batch_size, epoch):
    epoch_batches = drawn(num_rows, batch_size, epoch=epoch)
    assert sorted([*chain(*epoch_batches)]) == list(range(num_rows))
    assert {len(batch) for batch in epoch_batches[:-1]} <= {batch_size}
    assert 1 <= len(epoch_batches[-1]) <= batch_size


def test_inputs_and_targets_stay_together():
    for batch in batches(loaded(300_000), 1000, seed=3, epoch=4, device=CPU):
        assert torch.equal(batch.inputs + 0.5, batch.targets)


def test_the_order_is_a_function_of_seed_and_epoch_and_of_nothing_else():
    assert drawn(100, 10, seed=1, epoch=2) == drawn(100, 10, seed=1, epoch=2)
    orders = {str(drawn(100, 10, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25  # also: seed 0 in epoch 1 is not seed 1 in epoch 0


def test_the_order_does_not_depend_on_the_batch_size():
    assert [*chain(*drawn(1000, 7))] == [*chain(*drawn(1000, 100))]


def test_every_row_is_equally_likely_at_every_place():
    places = np.array([drawn(4, 4, epoch=epoch)[0] for epoch in range(4000)])
    counts = np.array([np.bincount(place.astype(int), minlength=4) for place in places.T])
    assert ((counts - 1000) ** 2 / 1000).sum() < 27.9  # χ², level 0.001, 9 degrees of freedom


LARGE = (WINDOW_BLOCKS + 1) * BLOCK + 12_345  # rows of more than one window


@pytest.fixture(scope="module")
def large():
    """The batches of one epoch of a large table that is all kept."""
    return drawn(LARGE, 100_000, seed=1, epoch=2)


def test_batches_of_several_windows_visit_each_row_once(large):
    assert [len(batch) for batch in large[:-1]] == [100_000] * (LARGE // 100_000)
    assert np.array_equal(np.sort([*chain(*large)]), np.arange(LARGE))


def test_a_window_mixes_blocks_from_the_whole_table(large):
    blocks_of_a_batch = [{int(number) // BLOCK for number in batch} for batch in large[:10]]
    assert all(len(blocks) == WINDOW_BLOCKS for blocks in blocks_of_a_batch)


def test_the_whole_table_is_one_batch_in_its_own_order_without_a_copy():
    whole = loaded(300_000)
    assert [*batches(whole, None, seed=0, epoch=0, device=CPU)] == [whole]
    blocks = whole.blocks(BLOCK)
    assert [block.num_rows for block in blocks] == [262_144, 37_856]
    assert blocks[0].inputs.data_ptr() == whole.inputs.data_ptr()
    assert blocks[1].targets.data_ptr() == whole.targets[262_144:].data_ptr()


def test_many_rows_lie_in_a_file_without_a_name_and_give_the_same_batches(tmp_path, monkeypatch):
    expected = drawn(1000, 64, seed=1)
    monkeypatch.setattr(module, "MAX_ORDINARY_BYTES", 0)
    assert drawn(1000, 64, seed=1) == expected
    rows = load_rows(
        Numbers(1000), Model(["x"], "y", train_params(hidden=[]), torch.float64), tmp_path
    )
    assert rows.num_rows == 1000
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps").read_text()
    assert f"{tmp_path}/" in maps
    assert "(deleted)" in maps


def test_a_split_without_rows_is_loaded(tmp_path):
    assert (
        load_rows(
            Numbers(0), Model(["x"], "y", train_params(hidden=[]), torch.float64), tmp_path
        ).num_rows
        == 0
    )


@pytest.mark.parametrize(
    ("features", "hidden", "size"),
    [
        (1, [], 262_144),
        (10, [], 65_536),
        (100, [], 8_192),
        (1, [8], 32_768),
        (10, [64, 64], 4_096),
        (10, [10, 1000], 4_096),
        (100, [3], 8_192),
        (1000, [64], 512),
    ],
)
def test_the_rows_of_a_block_depend_only_on_columns_and_hidden_units(features, hidden, size):
    network = build_network(features, train_params(hidden=hidden))
    assert block_size(network, features) == size


def test_loaded_rows_are_scaled_as_the_model_scales(tmp_path):
    cells = np.random.default_rng(0).normal(5.0, 3.0, (300_000, 3)).astype(np.float32)
    writer = SplitWriter(tmp_path / "rows.parquet", ["a", "b", "t"], "float32")
    writer.write(cells)
    writer.close()
    model = Model(["a", "b"], "t", train_params(hidden=[]), torch.float32)
    model.standardize_by(
        Statistics(
            columns=["a", "b", "t"],
            categories={},
            fill={},
            filled={},
            rows={},
            mean=dict.fromkeys("abt", 5.0),
            standard_deviation={"a": 3.0, "b": 2.0, "t": 4.0},
            minimum={},
            maximum={},
        )
    )
    split = load_rows(Split(tmp_path / "rows.parquet"), model, tmp_path)
    z_scores = (torch.from_numpy(cells[:, :2]) - model.input_mean) / model.input_scale
    assert torch.equal(split.inputs, z_scores)
    assert torch.equal(split.targets, (torch.from_numpy(cells[:, 2:]) - 5.0) / 4.0)
