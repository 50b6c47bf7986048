"""``--set group.key=value``: single keys given on the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ppo_scheduler.config.fields import is_choice, is_text, leaf_fields
from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError

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
