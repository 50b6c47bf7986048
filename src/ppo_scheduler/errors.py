"""The one error a user can cause."""

from __future__ import annotations


class UserError(ValueError):
    """What cannot be done as asked: the text says what, where, and what to do.

    Command line entry points print it in one line and exit with status 2.
    """
