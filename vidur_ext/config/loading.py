"""Reading the JSON config and ``--set``, with errors that say where, what, and what is allowed.

JSON is read strictly: no key may stand twice in one object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import Location, is_choice, is_text, leaf_fields
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.training_config import TrainingConfig

_Section = TypeVar("_Section", bound=Section)
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


def read_section(path: Path, kind: type[_Section]) -> _Section:
    """Return the section that a JSON file holds.

    Raises:
        UserError: it cannot be read, or is no such section; every problem is named.
    """
    tree = read_json_object(path)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = describe_problems(error, kind, lambda _: str(path))
        raise UserError(join_problems(problems)) from None


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


KeyPath = tuple[str, ...]


def apply_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> list[KeyPath]:
    """Write overrides into ``tree``, the later over the earlier; return the paths they set.

    A value is JSON, or else plain text. For keys that hold text, numbers are text too, so a
    folder may be called 2024. Whether the keys exist is not checked here.

    Raises:
        UserError: an override that is no ``group.key=value``.
    """
    return [_apply(tree, text) for text in overrides]


def _apply(tree: dict[str, Any], text: str) -> KeyPath:
    dotted, separator, value = text.partition("=")
    *groups, name = path = tuple(dotted.strip().split("."))
    if not separator or not all(path):
        raise UserError(f"--set {text}: expected GROUP.KEY=VALUE, e.g. --set training.seed=7")
    if dotted.strip() in TrainingConfig.model_fields:
        raise UserError(f"--set {text}: {dotted} is a group; set its keys one by one")
    for depth, group in enumerate(groups, start=1):
        below = tree.setdefault(group, {})
        if not isinstance(below, dict):
            above = ".".join(groups[:depth])
            raise UserError(f"--set {text}: {above} holds a value, so it has no key {path[depth]}")
        tree = below
    tree[name] = _value(dotted.strip(), value)
    return path


def _value(dotted: str, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    key = dict(leaf_fields(TrainingConfig)).get(dotted)
    if key is None or isinstance(value, str | None) or is_choice(value, key.annotation):
        return value
    return text if is_text(key.annotation) else value


_COMMAND_LINE = "command line"
_TOO_DEEP = "objects or lists stand in each other deeper than in any config: remove them"


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the validated config of a JSON file (None: the defaults) with overrides applied.

    In paths a ``~`` and variables are replaced; relative ones count from the working directory.

    Args:
        overrides: texts ``a.b=value``; the value is JSON, or plain text if it is no JSON.

    Raises:
        UserError: naming every problem with its JSON path, its value and what is allowed.
    """
    tree = {} if path is None else read_json_object(path)
    overridden = apply_overrides(tree, overrides)

    def origin(location: Location) -> str:
        return _origin(path, overridden, tuple(location))

    return _validated(tree, origin)


def config_of_settings(settings: Mapping[str, Any], source: str) -> TrainingConfig:
    """Return the validated config of values by dotted name; ``source`` is named in errors.

    Raises:
        UserError: naming every problem.
    """
    tree: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        group, _, key = name.partition(".")
        tree.setdefault(group, {})[key] = value
    return _validated(tree, lambda location: source)


def _validated(tree: Mapping[str, Any], origin: Callable[[Location], str]) -> TrainingConfig:
    """Return the config of a tree; ``origin`` tells who said what is wrong at a location."""
    try:
        text = json.dumps(tree, ensure_ascii=False).encode("utf-8")
        return TrainingConfig.model_validate_json(text).with_paths()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{origin(())}: {error.object[error.start]!a} is half of a character; write all of it"
        ) from None
    except RecursionError:
        raise UserError(f"{origin(())}: {_TOO_DEEP}") from None
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":  # JSON it is: Python read it
            raise UserError(f"{origin(())}: {_TOO_DEEP}") from None
        raise UserError(join_problems(describe_problems(error, TrainingConfig, origin))) from None


def dump_config(config: TrainingConfig) -> str:
    """Return the whole config as JSON text, every key with its value."""
    return json.dumps(config.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def _origin(
    file: Path | None, overridden: Sequence[tuple[str, ...]], location: tuple[str | int, ...]
) -> str:
    """Return who set the value at ``location``, or the values of the group there."""
    if file is None:
        return _COMMAND_LINE if overridden else "defaults"
    if any(location[: len(path)] == path for path in overridden):
        return _COMMAND_LINE
    if any(path[: len(location)] == location for path in overridden):
        return f"{file} and {_COMMAND_LINE}"
    return str(file)
