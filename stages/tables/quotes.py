"""Find a quote that would make Arrow join the rows of a CSV file, which it does not notice."""

import numpy as np
import pyarrow as pa

READ_BYTES = 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def faulty_quote_line(stream: pa.NativeFile, delimiter: str) -> int | None:
    """Return the line of a quote that does not open or close a whole cell, if there is any.

    An opening quote must follow a delimiter or a line break, and a closing quote must precede one.
    A doubled quote inside a cell counts as a closing and an opening quote.
    """
    is_edge = np.zeros(256, bool)
    is_edge[[*b'"\r\n', ord(delimiter)]] = True
    text = b"\n" + stream.read(READ_BYTES).removeprefix(BYTE_ORDER_MARK)
    num_breaks = num_quotes = quote_line = 0  # the break before the file makes its first line 1
    while True:
        content = stream.read(READ_BYTES)
        text += content or b"\n"
        if b'"' in text:
            characters = np.frombuffer(text, np.uint8)
            places = np.flatnonzero(characters[1:-1] == ord('"')) + 1
            closes = (np.arange(len(places)) + num_quotes) % 2
            faulty = places[~is_edge[characters[places + 2 * closes - 1]]]
            if len(faulty):
                return num_breaks + text.count(b"\n", 0, faulty[0])
            num_quotes += len(places)
            if len(places):
                quote_line = num_breaks + text.count(b"\n", 0, places[-1])
        if not content:
            return quote_line if num_quotes % 2 else None  # the last quote is not closed
        num_breaks += text.count(b"\n", 0, len(text) - 2)
        text = text[-2:]  # the second byte has not been checked yet
