"""What a user can do about a column that mixes numbers and text."""

import json
import re
from itertools import product

from stages.base.params import PrepareParams
from stages.tables.cells import THOUSANDS, CellParser
from stages.tables.line import Line
from stages.tables.table import Table

EXPONENT = re.compile(r"(?<=\d)[eE][+-]?\d+$")
DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?|\d{1,2}:\d{2}(:[\d.,]+)?")
SET_MISSING = "set `prepare.missing` to drop or fill"


def looks_like_number(text: str) -> bool:
    """Whether a text is more likely a number, a date or a time than a category."""
    text = EXPONENT.sub("", text)
    is_number = has_digit(text) and not any(map(str.isalpha, text))
    return is_number or DATE.fullmatch(text) is not None


def has_digit(text: str) -> bool:
    """Whether a text has a digit."""
    return any(map(str.isdigit, text))


def leave_out(column: str, params: PrepareParams) -> str:
    """How a user makes `prepare` ignore a column."""
    if column == params.target:
        return "choose another `prepare.target`"
    if params.features:
        return "remove it from `prepare.features`"
    return "list it in `prepare.exclude`"


def cure_of_signs(table: Table | Line, column: str, params: PrepareParams) -> str:
    """Which other signs make numbers of all cells with digits, with the fewest changes.

    The sign of thousands in params.yaml never becomes a decimal sign.
    """
    fits = []
    for decimal, thousands in product({params.decimal, ","}, {params.thousands, *THOUSANDS}):
        parse = CellParser(params.missing_values, decimal, thousands, has_types=False)
        batches = (parse(batch.columns[0], False) for batch in table.batches([column]))
        is_possible = decimal not in {thousands, params.thousands}
        if is_possible and not any(has_digit(text) for b in batches for text in b.texts):
            signs = {"decimal": decimal, "thousands": thousands}.items()
            new = [(key, sign) for key, sign in signs if sign != getattr(params, key)]
            fits.append([f"`prepare.{key}` to {json.dumps(sign)}" for key, sign in new])
    fewest = min(map(len, fits), default=0)
    cures = sorted(" and ".join(fit) for fit in fits if len(fit) == fewest)
    if len(cures) > 1:
        return f"The cells have two meanings: set {', or '.join(cures)}, whichever is right."
    return f"Set {cures[0]}." if cures else ""
