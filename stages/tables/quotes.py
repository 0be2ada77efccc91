"""Whether the quotes of CSV open and close whole cells, seen while the bytes pass by."""

import io

import numpy as np
import pyarrow as pa

QUOTE = ord('"')
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class QuoteCheck(io.RawIOBase):
    """A stream whose bytes are passed on.

    A quote that opens a cell stands behind a delimiter or the end of a line, one that closes it
    before one; a doubled one inside a cell closes it and opens it again.
    """

    def __init__(self, stream: pa.NativeFile, delimiter: str) -> None:
        self._stream = stream
        self._is_edge = np.zeros(256, bool)
        self._is_edge[[*b'"\r\n', ord(delimiter)]] = True
        self._last = b""  # two bytes, of which the second has not been judged
        self._is_open, self._is_regular = False, True

    def readable(self) -> bool:
        """As a file tells it."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes; first three or more, which may be the mark of UTF-8."""
        content: bytes = self._stream.read(size)
        self._judge(content)
        return content

    def is_regular(self) -> bool:
        """Whether all quotes so far were as they should be, and none is open."""
        self._judge(b"\n")
        return self._is_regular and not self._is_open

    def _judge(self, content: bytes) -> None:
        if not self._last:
            content = b"\n" + content.removeprefix(BYTE_ORDER_MARK)
        signs = np.frombuffer(self._last + content, np.uint8)
        places = np.flatnonzero(signs[1:-1] == QUOTE) + 1
        closes = (np.arange(len(places)) + self._is_open) % 2
        beside = signs[places + 2 * closes - 1]
        self._is_regular &= bool(self._is_edge[beside].all())
        self._is_open ^= bool(len(places) % 2)
        self._last = signs[-2:].tobytes()
