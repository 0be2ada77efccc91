import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.rows.exact_sum import ExactSum, exact_sum

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e200, max_value=1e200)
tables = arrays(np.float64, st.tuples(st.integers(1, 30), st.just(2)), elements=numbers)


def total(parts) -> bytes:
    """The sums of all parts, each part added by a partial sum of its own."""
    result = ExactSum(2)
    for part in parts:
        partial = ExactSum(2)
        partial.add(part)
        result.merge(partial)
    return result.total().tobytes()


@given(tables, st.randoms(use_true_random=False), st.lists(st.integers(0, 30), max_size=5))
def test_neither_order_nor_grouping_changes_a_bit(table, random, cuts):
    shuffled = table[random.sample(range(len(table)), len(table))]
    assert total([table]) == total(np.split(shuffled, sorted(cuts)))


@given(tables)
def test_a_sum_is_exact_up_to_its_rounding_and_what_is_cut_off(table):
    result = ExactSum(2)
    result.add(table)
    for column, value in zip(table.T, result.total(), strict=True):
        exact = sum(map(Fraction, column.tolist()), Fraction(0))
        largest = Fraction(float(np.abs(column).max()))
        cut_off = len(column) * max(largest / 2**64, Fraction(2) ** -992)
        assert abs(Fraction(float(value)) - exact) <= abs(exact) / 2**51 + cut_off


def test_where_a_float_sum_depends_on_order_an_exact_sum_does_not():
    values = np.random.default_rng(1).standard_normal((1000, 2)) * 1e3
    assert (
        values.sum(axis=0).tobytes()
        != np.sort(values, axis=0)[::-1].copy().cumsum(axis=0)[-1].tobytes()
    )
    assert total([values]) == total([values[::-1]]) == total(np.split(values, 7 * [3]))


def test_a_single_number_is_returned_unchanged():
    for number in [0.0, 1.0, -0.1, 1e308, -5e-275, 2.0**-980]:
        result = ExactSum(1)
        result.add(np.array([[number]]))
        assert result.total()[0] == number


def test_a_small_negative_total_of_large_numbers_is_exact():
    result = ExactSum(1)
    result.add(np.array([[2.0**63], [-(2.0**63)], [-(2.0**-30)]]))
    assert result.total()[0] == -(2.0**-30)


def test_cancellation_is_exact():
    result = ExactSum(1)
    result.add(np.array([[1e16], [1.0], [-1e16], [2.0**-30]]))
    assert result.total()[0] == 1 + 2.0**-30


def test_a_total_too_large_for_a_float_is_infinite_and_nothing_is_printed():
    result = ExactSum(2)
    result.add(np.array([[1e308, -1e308]] * 3))
    assert result.total().tolist() == [math.inf, -math.inf]  # warnings are errors in tests


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_number_that_is_not_finite_makes_the_total_nan_whatever_the_order(bad):
    table = np.array([[1.0, 2.0], [bad, 3.0]])
    for rows in (table, table[::-1]):
        result = ExactSum(2)
        for row in rows:
            result.add(row[None])
        other = ExactSum(2)
        other.merge(result)
        assert np.isnan(result.total()).all()
        assert np.isnan(other.total()).all()


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_the_number_of_threads_changes_no_bit(use_threads, num_threads):
    table = np.random.default_rng(0).standard_normal((100, 50, 3)) ** 5
    use_threads(num_threads)
    expected = ExactSum(3)
    expected.add(table.reshape(-1, 3))
    assert (
        exact_sum(lambda block: table[block], range(100), 3).tobytes() == expected.total().tobytes()
    )


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exact_sum(fail, range(5), 1)
