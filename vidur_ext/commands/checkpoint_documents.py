"""What ``vidur-ppo checkpoints`` tells, as JSON documents; tables are made of the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppo_scheduler.checkpoint.catalog import Entry, newest, recorded_keep_every
from ppo_scheduler.errors import UserError

if TYPE_CHECKING:
    from ppo_scheduler.checkpoint.diff import Difference, PartDiff
    from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
    from ppo_scheduler.state import StateDict

Document = dict[str, Any]

_IDENTITY = (
    "ppo_step",
    "global_step",
    "created_at",
    "reason",
    "val_score",
    "run_dir",
    "num_replicas",
    "config_digest",
    "schema_version",
)


def listing(folder: Path, entries: Sequence[Entry], now: datetime) -> Document:
    """Describe the checkpoints of a folder."""
    last, keep_every = newest(entries), recorded_keep_every(entries)
    return {
        "folder": str(folder),
        "checkpoints": [
            {
                **_line(entry),
                "age_s": _age_s(entry, now),
                "archive": entry.archive,
                "latest": entry is last,
                "permanent": keep_every is not None and entry.step % keep_every == 0,
                "problem": entry.problem,
            }
            for entry in entries
        ],
    }


def description(loaded: LoadedCheckpoint, defaults: Mapping[str, Any]) -> Document:
    """Describe one checkpoint: manifest, parts, and the settings that are not the defaults."""
    from ppo_scheduler.checkpoint.inventory import summaries

    manifest = loaded.manifest.model_dump(mode="json")
    settings = manifest["settings"]
    return {
        "path": str(loaded.path),
        "manifest": manifest,
        "parts": [asdict(part) for part in summaries(loaded.tree)],
        "changed_settings": [
            {"name": name, "value": value, "default": defaults.get(name)}
            for name, value in settings.items()
            if name not in defaults or value != defaults[name]
        ],
    }


def verdict(path: str, problem: str | None) -> Document:
    """Tell whether a checkpoint can be used."""
    return {"path": path, "ok": problem is None, "problem": problem}


def pruning(entries: Sequence[Entry], gone: Sequence[Path]) -> Document:
    """Tell what is deleted and what stays."""
    deleted = [_line(entry) for entry in entries if entry.path in set(gone)]
    return {
        "deleted": deleted,
        "kept": [_line(entry) for entry in entries if entry.path not in set(gone)],
        "freed_bytes": sum(line["size_bytes"] for line in deleted),
    }


def policy_state(loaded: LoadedCheckpoint) -> StateDict:
    """Return the policy in a checkpoint.

    Raises:
        UserError: it holds none.
    """
    try:
        state: StateDict = loaded.tree["learner"]["policy"]
    except (LookupError, TypeError):
        raise UserError(f"{loaded.path}: holds no policy") from None
    return state


def export(loaded: LoadedCheckpoint, policy: Path) -> Document:
    """Tell what was exported."""
    return {
        "checkpoint": str(loaded.path),
        "ppo_step": loaded.manifest.ppo_step,
        "policy": str(policy),
        "size_bytes": policy.stat().st_size,
    }


def comparison(left: LoadedCheckpoint, right: LoadedCheckpoint) -> Document:
    """Compare two checkpoints. They are different if settings, versions or states are."""
    from ppo_scheduler.checkpoint.diff import part_diffs, value_differences

    parts = part_diffs(left.tree, right.tree)
    settings = value_differences(left.manifest.settings, right.manifest.settings)
    versions = value_differences(left.manifest.versions, right.manifest.versions)
    return {
        "a": _identity(left),
        "b": _identity(right),
        "different": bool(settings or versions or not all(part.equal for part in parts)),
        "settings": [_difference(one) for one in settings],
        "versions": [_difference(one) for one in versions],
        "parts": [_part(part) for part in parts],
    }


def _line(entry: Entry) -> Document:
    manifest = entry.manifest
    return {
        "path": str(entry.path),
        "ppo_step": entry.step,
        "global_step": manifest and manifest.global_step,
        "created_at": manifest and manifest.created_at,
        "size_bytes": manifest.size_bytes if manifest else entry.path.stat().st_size,
        "reason": manifest and manifest.reason,
        "val_score": manifest and manifest.val_score,
        "run_dir": manifest and manifest.run_dir,
    }


def _age_s(entry: Entry, now: datetime) -> float | None:
    if entry.manifest is None:
        return None
    return (now - datetime.fromisoformat(entry.manifest.created_at)).total_seconds()


def _identity(loaded: LoadedCheckpoint) -> Document:
    manifest = loaded.manifest.model_dump(mode="json")
    return {"path": str(loaded.path), **{name: manifest[name] for name in _IDENTITY}}


def _part(part: PartDiff) -> Document:
    return {
        "name": part.name,
        "equal_tensors": part.equal_tensors,
        "changed_tensors": [_difference(one) for one in part.changed_tensors],
        "reshaped_tensors": [_difference(one) for one in part.reshaped_tensors],
        "values": [_difference(one) for one in part.values],
    }


def _difference(one: Difference) -> Document:
    document: Document = {"name": one.name, "a": one.left, "b": one.right}
    if one.max_abs is not None:  # JSON knows neither infinity nor NaN
        document["max_abs"] = one.max_abs if math.isfinite(one.max_abs) else str(one.max_abs)
    return document
