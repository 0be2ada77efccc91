import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.rows.categories import columns_of, encode, inputs_of

CATEGORIES = {"b": ["u", "v", "w"], "d": ["only"]}
COLUMNS = ["a", "b", "c", "d"]
FEATURES = ["a", "b=u", "b=v", "b=w", "c", "d=only"]


def test_a_category_column_makes_one_feature_per_category():
    assert [name for column in COLUMNS for name in inputs_of(column, CATEGORIES)] == FEATURES


def test_features_tell_the_columns_they_come_from():
    assert columns_of(FEATURES, CATEGORIES) == COLUMNS
    assert columns_of(COLUMNS, {}) == COLUMNS


@given(st.lists(st.integers(0, 2), min_size=1), st.sampled_from([np.float32, np.float64]))
def test_encoded_rows_hold_one_one_for_each_category_column(codes, dtype):
    rows = np.array([[0.5, code, -2.0, 0] for code in codes], dtype)
    encoded = encode(rows, COLUMNS, CATEGORIES)
    assert encoded.dtype == dtype
    for code, row in zip(codes, encoded, strict=True):
        assert row.tolist() == [0.5, *(float(i == code) for i in range(3)), -2.0, 1.0]


def test_rows_without_categories_are_not_copied():
    rows = np.ones((3, 2))
    assert encode(rows, ["a", "b"], {}) is rows
