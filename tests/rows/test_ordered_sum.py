import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.rows.ordered_sum import column_sums, groups, ordered_mean, ordered_sum


@given(st.integers(1, 500), st.integers(1, 80))
def test_groups_hold_every_item_once_in_order_and_none_is_empty(num_items, num_groups):
    items = range(num_items)
    found = groups(items, num_groups)
    assert [item for group in found for item in group] == [*items]
    assert len(found) == min(num_items, num_groups)
    assert all(len(group) for group in found)


VECTORS = np.random.default_rng(0).standard_normal((300, 3)) ** 5


@pytest.mark.parametrize("num_threads", [1, 2, 3, 8])
def test_the_number_of_threads_changes_no_bit(use_threads, num_threads):
    expected = 0
    for group in groups(VECTORS):
        total = group[0]
        for vector in group[1:]:
            total = total + vector
        expected = expected + total
    use_threads(num_threads)
    assert ordered_sum(VECTORS.__getitem__, range(300)).tobytes() == expected.tobytes()


def test_another_order_of_these_vectors_gives_other_bits():
    found = {ordered_sum(VECTORS[order].__getitem__, range(300)).tobytes() for order in (
        np.arange(300), np.arange(300)[::-1],
    )}  # fmt: skip
    assert len(found) == 2, "so the tests of threads and ranks can fail"


def test_a_sum_is_near_the_exact_sum():
    exact = [np.longdouble(0) + column.astype(np.longdouble).sum() for column in VECTORS.T]
    scale = np.abs(VECTORS).sum(axis=0)
    found = ordered_sum(VECTORS.__getitem__, range(300))
    # Each of 300 additions rounds to within 2⁻⁵³ of a partial sum.
    assert (np.abs(found - np.array(exact, float)) <= 300 * 2.0**-53 * scale).all()
    found = column_sums(VECTORS)
    assert (np.abs(found - np.array(exact, float)) <= 300 * 2.0**-53 * scale).all()


@given(st.floats(-1e300, 1e300), st.integers(1, 200))
def test_the_mean_of_equal_rows_is_that_row(value, num_rows):
    rows = np.full((num_rows, 1), value)
    assert ordered_mean(lambda _: rows, range(3), 3 * num_rows).tolist() == [value]


def test_a_sum_that_overflows_is_infinite_and_nothing_is_printed():
    found = ordered_sum(lambda _: np.array([1e308, -1e308]), range(200))
    assert found.tolist() == [np.inf, -np.inf]  # warnings are errors in tests


def test_an_error_in_a_thread_reaches_the_caller():
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ordered_sum(fail, range(5))
