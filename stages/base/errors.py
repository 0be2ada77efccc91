"""Errors that a user can cause and correct."""

MAX_VALUE_CHARACTERS = 300


class UserError(Exception):
    """An error that a user can correct: one sentence per fault with where, rule, value and cure.

    A stage prints only the sentences, without a traceback, and exits with status 1.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; each library words it differently."""
    phrases = "allocate memory", "worker thread", "new thread", "error return without exception set"
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in phrases)


def cut(text: str) -> str:
    """The first ``MAX_VALUE_CHARACTERS`` characters of a text, with an ellipsis if more follow."""
    return text[:MAX_VALUE_CHARACTERS] + "…" * (len(text) > MAX_VALUE_CHARACTERS)
