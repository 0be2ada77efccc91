"""Check the quotes of a CSV file while its bytes are read."""

import io

import numpy as np
import pyarrow as pa

QUOTE = ord('"')
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class QuoteCheck(io.RawIOBase):
    """Pass on the bytes of a stream, and check that quotes open and close whole cells.

    An opening quote must follow a delimiter or a line break, and a closing quote must precede one.
    A doubled quote inside a cell counts as a closing and an opening quote.
    """

    def __init__(self, stream: pa.NativeFile, delimiter: str) -> None:
        self._stream = stream
        self._is_edge = np.zeros(256, bool)
        self._is_edge[[*b'"\r\n', ord(delimiter)]] = True
        self._last = b""  # two bytes; the second has not been checked yet
        self._is_open, self._is_regular = False, True

    def readable(self) -> bool:
        """Return true, as a file that is open for reading does."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read the next bytes; the first call must read the byte order mark, so at least three."""
        content: bytes = self._stream.read(size)
        self._check(content)
        return content

    def is_regular(self) -> bool:
        """Whether all quotes so far keep the rules and none is open; call it at the end."""
        self._check(b"\n")
        return self._is_regular and not self._is_open

    def _check(self, content: bytes) -> None:
        if not self._last:
            content = b"\n" + content.removeprefix(BYTE_ORDER_MARK)
        characters = np.frombuffer(self._last + content, np.uint8)
        places = np.flatnonzero(characters[1:-1] == QUOTE) + 1
        closes = (np.arange(len(places)) + self._is_open) % 2
        neighbours = characters[places + 2 * closes - 1]
        self._is_regular &= bool(self._is_edge[neighbours].all())
        self._is_open ^= bool(len(places) % 2)
        self._last = characters[-2:].tobytes()
