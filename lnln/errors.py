"""The one exception for what came from outside and cannot be used."""

from __future__ import annotations


class RefusedError(ValueError):
    """A refusal in one sentence: what was expected, what came and where, and the command that mends it.

    The command line prints it without a traceback and exits with 1. Our own mistakes are `assert`s instead.
    """


class StoreFailedError(RefusedError):
    """A store that did not do what it was asked to: unreachable, overloaded, forbidden, full.

    It says nothing of what the store holds, so nobody who looks for damage may take it for that.
    """
