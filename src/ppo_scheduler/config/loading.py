"""Reading the JSON config, with errors that say where, what, and what is allowed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError

Tree = dict[str, Any]


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the validated config of a JSON file (None: the defaults) with overrides applied.

    Paths inside the config stay as written: relative ones count from the working directory.

    Args:
        overrides: texts ``a.b=value``; the value is JSON, or plain text if it is no JSON.

    Raises:
        UserError: naming every problem with its JSON path, its value and what is allowed.
    """
    tree = {} if path is None else _read(path)
    origin = dict.fromkeys(_leaf_paths(tree), str(path))
    for text in overrides:
        dotted, value = _parse_override(text)
        _apply(tree, dotted, value)
        origin[dotted] = f"--set {text}"
    try:
        return TrainingConfig.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        source = str(path) if path is not None else "configuration"
        problems = [_describe(problem, origin, source) for problem in error.errors()]
        raise UserError("\n".join(problems)) from None


def dump_config(config: TrainingConfig) -> str:
    """Return the whole config as JSON text, every key with its value."""
    return json.dumps(config.model_dump(mode="json"), indent=2) + "\n"


def leaf_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield (dotted path, field) of every key that holds a value rather than a group."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaf_fields(field.annotation, f"{path}.")
        else:
            yield path, field


def _read(path: Path) -> Tree:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read the config ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    try:
        tree = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}"
        ) from None
    except _DuplicateKeyError as error:
        raise UserError(f"{path}: the key {error} stands twice in one object") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a JSON object of groups, found {type(tree).__name__}")
    return tree


class _DuplicateKeyError(Exception):
    """A JSON object names one key twice."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> Tree:
    tree: Tree = {}
    for name, value in pairs:
        if name in tree:
            raise _DuplicateKeyError(repr(name))
        tree[name] = value
    return tree


def _parse_override(text: str) -> tuple[str, Any]:
    dotted, separator, value = text.partition("=")
    if not separator or not dotted:
        raise UserError(f"--set {text}: expected GROUP.KEY=VALUE, e.g. training.seed=7")
    known = [path for path, _ in leaf_fields(TrainingConfig)]
    if dotted not in known:
        raise UserError(f"--set {text}: unknown key {dotted}{_nearest(dotted, known)}")
    try:
        return dotted, json.loads(value)
    except json.JSONDecodeError:
        return dotted, value


def _apply(tree: Tree, dotted: str, value: Any) -> None:
    *groups, name = dotted.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
        if not isinstance(tree, dict):
            raise UserError(f"--set {dotted}: {group} is no object of keys in the config file")
    tree[name] = value


def _leaf_paths(tree: Tree, prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaf_paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _nearest(dotted: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _describe(problem: Any, origin: dict[str, str], source: str) -> str:
    """Turn one pydantic problem into one line for a person."""
    path = ".".join(str(part) for part in problem["loc"])
    where = origin.get(path, source)
    if problem["type"] == "extra_forbidden":
        groups = list(TrainingConfig.model_fields)
        known = [name for name, _ in leaf_fields(TrainingConfig)] + groups
        value = json.dumps(problem["input"])
        return f"{where}: {path} = {value}: unknown key{_nearest(path, known)}"
    if problem["type"] == "value_error":
        return f"{where}: {path or 'config'}: {problem['ctx']['error']}"
    value = json.dumps(problem["input"], default=str)
    help_text = {name: field.description for name, field in leaf_fields(TrainingConfig)}.get(path)
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {path} = {value}: {reason}" + (f" ({help_text})" if help_text else "")
