import csv
import io

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.tables.quotes import QuoteCheck


def is_regular(content, size=7):
    check = QuoteCheck(pa.BufferReader(content), ";")
    while check.read(size):
        pass
    return check.is_regular()


@pytest.mark.parametrize(
    "text", ["", "a;b\n1;2\n", '"a"', '"a";"b""c"\r\n"";"d\ne"\r"f"', '""""', '\ufeff"a";b\n']
)
def test_quotes_around_whole_cells_are_regular(text):
    assert all(is_regular(text.encode(), size) for size in (3, 4, 5, 1000))


@pytest.mark.parametrize(
    "text", ['"', '"a', 'a"', '"a" ', '"a"b', '5";1\n', '"a";"b\nc;d\n', '"""']
)
def test_other_quotes_are_not_regular(text):
    assert not any(is_regular(text.encode(), size) for size in (3, 4, 5, 1000))


@given(st.text(alphabet='";\n\ra ', max_size=30), st.integers(1, 40))
@example('a;"b\nc', 3)
def test_regular_quotes_keep_the_rules_of_csv(text, size):
    if is_regular(text.encode(), size):
        [*csv.reader(io.StringIO(text, newline=""), delimiter=";", strict=True)]
