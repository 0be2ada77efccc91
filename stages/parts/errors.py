"""Errors that a user can cause and cure."""

import io
import sys
from collections.abc import Callable


class UserError(Exception):
    """One sentence per fault: where, rule, value, cure. Shown bare; the exit status is 1."""


def run(main: Callable[[], None]) -> None:
    """Run a stage; what a user can cause ends it with its sentence and exit status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack the sign ·
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"{where}{error.strerror or error}. Check the permissions and the free space.")
