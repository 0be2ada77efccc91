"""Errors that a user can cause and cure."""


class UserError(Exception):
    """One sentence per fault: where, rule, value, cure. Shown bare; the exit status is 1."""
