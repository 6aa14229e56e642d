"""The one exception for what came from outside and cannot be used."""

from __future__ import annotations


class RefusedError(ValueError):
    """A refusal in one sentence: what was expected, what came and where, and the command that mends it.

    The command line prints it without a traceback and exits with 1. Our own mistakes are `assert`s instead.
    """
