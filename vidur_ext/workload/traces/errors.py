"""Errors in trace files: every text names the file, the line, the column and what was expected."""

from __future__ import annotations

from pathlib import Path

from ppo_scheduler.errors import UserError

_SHOWN = 40


def file_error(path: Path, text: str) -> UserError:
    """Return the error about a file as a whole."""
    return UserError(f"{path}: {text}")


def line_error(path: Path, line: int, text: str) -> UserError:
    """Return the error about a line (counted from 1, the header included)."""
    return UserError(f"{path}, line {line}: {text}")


def column_error(path: Path, line: int, column: str, text: str) -> UserError:
    """Return the error about one column of a line."""
    return UserError(f"{path}, line {line}, column {column}: {text}")


def value_error(path: Path, line: int, column: str, expected: str, found: object) -> UserError:
    """Return the error about one value."""
    shown = repr(found)
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}…"
    return column_error(path, line, column, f"expected {expected}, found {shown}")
