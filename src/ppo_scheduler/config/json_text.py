"""Strict JSON: errors carry line and column, and no key may stand twice in one object."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError

_KEY_OR_BRACE = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]')


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a UTF-8 file holds.

    Raises:
        UserError: naming file, line and column, and what was expected there.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot read the config ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, {_place(text, error.pos)}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # thousands of digits, thousands of brackets
        raise UserError(f"{path}: not JSON that can be read: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f'{path}: expected an object of groups, {{"training": {{...}}, ...}}')
    _check_keys_are_unique(path, text)
    return tree


def _check_keys_are_unique(path: Path, text: str) -> None:
    """Refuse keys that stand twice in one object; Python's reader would keep the last value."""
    enclosing: list[dict[str, int]] = []
    for token in _KEY_OR_BRACE.finditer(text):
        if token.group() == "{":
            enclosing.append({})
        elif token.group() == "}":
            enclosing.pop()
        elif token.group(2):
            name = json.loads(token.group(1))
            first = enclosing[-1].setdefault(name, token.start())
            if first != token.start():
                raise UserError(
                    f"{path}, {_place(text, token.start())}: the key {json.dumps(name)} stands in "
                    f"this object already ({_place(text, first)}); remove one of them"
                )


def _place(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"
