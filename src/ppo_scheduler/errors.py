"""The errors a user can cause."""

from __future__ import annotations


class UserError(ValueError):
    """What cannot be done as asked: the text says what, where, and what to do.

    Command line entry points print it in one line and exit with status 2.
    """


class IncompatibleState(UserError):
    """A saved state that is whole but was made for another network, observation or seed."""
