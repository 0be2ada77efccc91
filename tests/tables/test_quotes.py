import csv
import io

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.tables import table


def faulty_line(text, size=1000):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "BATCH_BYTES", size)
        return table.faulty_quote_line(pa.BufferReader(text.encode()), ";")


@pytest.mark.parametrize(
    "text", ["a;b\n1;2\n", '"a"', '"a";"b""c"\r\n"";"d\ne"\r"f"', '""""', '\ufeff"a";b\n']
)
def test_quotes_around_whole_cells_are_regular(text):
    assert [faulty_line(text, size) for size in (3, 4, 5, 1000)] == 4 * [None]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"', 1), ('"a', 1), ('a"', 1), ('"a" ', 1), ('"a"b', 1), ('1\n\n5";1\n', 3), ('"""', 1),
        ('"a";"b\nc;d\n', 1), ('a;b\n"c\nd";"e"\n"f;\n', 4), ('a\n"5 inch\n9" pipe\n', 3),
    ],
)  # fmt: skip
def test_another_quote_is_named_by_its_line(text, line):
    assert [faulty_line(text, size) for size in (3, 4, 5, 1000)] == 4 * [line]


@given(st.text(alphabet='";\n\ra ', max_size=30), st.integers(3, 40))
@example('a;"b\nc', 3)
def test_regular_quotes_keep_the_rules_of_csv(text, size):
    if not faulty_line(text, size):
        [*csv.reader(io.StringIO(text, newline=""), delimiter=";", strict=True)]
