"""Errors that a user can cause and cure."""

MAX_VALUE_CHARACTERS = 300


class UserError(Exception):
    """One sentence per fault: where, rule, value, cure. Shown bare; the exit status is 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library lacks memory, whatever it calls that."""
    words = "allocate memory", "worker thread", "new thread", "error return without exception set"
    return isinstance(error, MemoryError) or any(text in str(error) for text in words)


def cut(text: str) -> str:
    """The beginning of a text, as long as a sentence can hold it."""
    return text[:MAX_VALUE_CHARACTERS] + "…" * (len(text) > MAX_VALUE_CHARACTERS)
