import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tables.line import Line, portable_log, standard_normal


def rows(num_rows, m=0.7, b=0.3, noise=0.05, seed=42):
    batches = Line(num_rows, m, b, noise, seed).batches(["x", "y"])
    return np.concatenate([np.column_stack(batch.columns) for batch in batches])


def test_x_is_even_in_the_unit_interval_and_y_is_on_the_line_without_noise():
    table = rows(50, noise=0.0)
    assert table[:, 0].tolist() == [i / 50 for i in range(50)]
    assert table[:, 1].tolist() == [0.7 * (i / 50) + 0.3 for i in range(50)]


@pytest.mark.parametrize("num_rows", [1, 2, 65_536, 65_537, 200_000])
def test_the_number_of_rows_is_exact(num_rows):
    assert len(rows(num_rows)) == num_rows


def test_the_bits_of_the_default_line_are_the_same_on_every_machine():
    digest = hashlib.sha256(rows(1000).tobytes()).hexdigest()
    assert digest == "a0a914d2581a357bab94fd9ea58927648bbf0652c4210bf7359f8355d0e0cade"


def test_the_noise_of_a_row_does_not_depend_on_the_number_of_rows():
    few, many = (rows(n, m=0.0, b=0.0, noise=1.0) for n in (70_000, 140_000))
    assert few[:, 1].tobytes() == many[:70_000, 1].tobytes()


def test_seeds_and_blocks_have_their_own_noise():
    one, other = (rows(140_000, m=0.0, b=0.0, noise=1.0, seed=seed)[:, 1] for seed in (0, 1))
    blocks = [*np.split(one[:131_072], 2), *np.split(other[:131_072], 2)]
    assert len({block.tobytes() for block in blocks}) == 4
    assert np.abs(np.corrcoef(blocks) - np.eye(4)).max() < 5 / math.sqrt(65_536)


def test_deviations_are_normally_distributed():
    sample = np.sort(standard_normal(np.random.default_rng(7), 1_000_000))
    distribution = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in sample])
    distance = np.abs(distribution - np.arange(len(sample)) / len(sample)).max()
    assert distance < 1.95 / 1000  # Kolmogorov-Smirnov at the level of 0.001
    for bound, probability in [(3.0, 2.6998e-3), (4.0, 6.3342e-5)]:
        count = (np.abs(sample) > bound).sum()
        expected = 1_000_000 * probability
        assert abs(count - expected) < 4 * math.sqrt(expected)


@given(st.floats(min_value=5e-324, max_value=1.7e308))
def test_the_logarithm_is_the_logarithm(value):
    ours = portable_log(np.array([value]))[0]
    assert math.isclose(ours, math.log(value), rel_tol=1e-15, abs_tol=1e-16)
