"""What ``vidur-ppo checkpoints`` tells, command by command: a JSON document, then the same for a
terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ppo_scheduler.checkpoint.reading import Entry, newest, recorded_keep_every
from ppo_scheduler.errors import UserError
from vidur_ext.commands.printing import (
    DASH,
    Document,
    console,
    facts_table,
    moment,
    say,
    table,
)

if TYPE_CHECKING:
    from ppo_scheduler.checkpoint.diff import LeafDifference, PartDiff
    from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
    from ppo_scheduler.state import StateDict
    from vidur_ext.gateway.trained import Trained

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
_LISTED = 20
"""Differences of the state that are listed one by one; ``--json`` has all."""
_VALUE_WIDTH = 18
_IDENTITY_WIDTH = 28


# list


def checkpoints_found(folder: Path, entries: Sequence[Entry], now: datetime) -> Document:
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


def print_checkpoints_found(document: Document) -> None:
    """Print a table per folder, what the marks mean, and what cannot be read."""
    lines = document["checkpoints"]
    if not lines:
        say(f"no checkpoints in {document['folder']}")
        return
    for archive, group in groupby(lines, key=lambda line: line["archive"]):
        folder = Path(document["folder"])
        title = folder if archive is None else folder / "archive" / archive
        say(str(title), "bold")
        console().print(_found_table(list(group)))
    marks = {"latest": "* what --resume latest continues", "permanent": "P permanent"}
    if legend := [text for mark, text in marks.items() if any(line[mark] for line in lines)]:
        say(", ".join(legend), "dim")
    for line in lines:
        if line["problem"]:
            say(f"{line['path']}: {line['problem']}", "red")


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


def _found_table(lines: Sequence[Document]) -> Table:
    headers = ("", "step", "decisions", "age", "size", "reason", "val score", "run")
    found = table(*headers, right=(1, 2, 3, 4, 6))
    for line in lines:
        found.add_row(
            ("*" if line["latest"] else "") + ("P" if line["permanent"] else ""),
            str(line["ppo_step"]),
            _or_nothing(line["global_step"]),
            _age(line["age_s"]),
            decimal(line["size_bytes"]),
            line["reason"] or Text("unusable", style="red"),
            _score(line["val_score"]),
            DASH if line["run_dir"] is None else Path(line["run_dir"]).name,
        )
    return found


def _age(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 0:
        return "future"  # the clock went back since
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


# show


def checkpoint_contents(loaded: LoadedCheckpoint, defaults: Mapping[str, Any]) -> Document:
    """Describe one checkpoint: manifest, parts, and the settings that are not the defaults."""
    from ppo_scheduler.checkpoint.diff import summaries

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


def print_checkpoint_contents(document: Document) -> None:
    """Print manifest, parts and changed settings."""
    manifest = document["manifest"]
    say(document["path"], "bold")
    console().print(facts_table(_facts(manifest)))
    parts = table("part", "tensors", "numbers", "bytes", "other values")
    for part in document["parts"]:
        parts.add_row(
            part["name"],
            str(part["tensors"]),
            f"{part['numbers']:,}",
            decimal(part["tensor_bytes"]),
            str(part["values"]),
        )
    say("")
    console().print(parts)
    say("")
    changed = document["changed_settings"]
    if not manifest["settings"]:
        say("its settings were not recorded")
    elif not changed:
        say("all settings are the defaults")
    else:
        settings = table("setting", "value", "default", right=())
        for one in changed:
            settings.add_row(one["name"], _json_text(one["value"]), _json_text(one["default"]))
        console().print(settings)


def _facts(manifest: Document) -> dict[str, str]:
    facts = {
        "PPO step": manifest["ppo_step"],
        "decisions": manifest["global_step"],
        "saved because of": manifest["reason"],
        "created": manifest["created_at"],
        "val score": _score(manifest["val_score"]),
        "run": manifest["run_dir"],
        "replicas": manifest["num_replicas"],
        "size": decimal(manifest["size_bytes"]),
        "schema version": manifest["schema_version"],
        "versions": ", ".join(f"{name} {text}" for name, text in manifest["versions"].items()),
        "config digest": manifest["config_digest"],
        "sha256": manifest["sha256"],
        **manifest["facts"],
    }
    return {name.replace("_", " "): str(value) for name, value in facts.items()}


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# verify


def verification(path: str, problem: str | None) -> Document:
    """Tell whether a checkpoint can be used."""
    return {"path": path, "ok": problem is None, "problem": problem}


def print_verifications(document: Document) -> None:
    """Print which checkpoints are good."""
    for result in document["checkpoints"]:
        word, style = ("ok ", "green") if result["ok"] else ("BAD", "red")
        say(f"{word} {result['path']}", style)


# prune


def pruning(entries: Sequence[Entry], gone: Sequence[Path]) -> Document:
    """Tell what is deleted and what stays."""
    deleted = [_line(entry) for entry in entries if entry.path in set(gone)]
    return {
        "deleted": deleted,
        "kept": [_line(entry) for entry in entries if entry.path not in set(gone)],
        "freed_bytes": sum(line["size_bytes"] for line in deleted),
    }


def print_what_would_go(document: Document) -> None:
    """Print what would be deleted."""
    gone = document["deleted"]
    if not gone:
        say("nothing to delete")
        return
    going = table("step", "created", "size", "reason", "val score", right=(0, 2, 4))
    for line in gone:
        going.add_row(
            str(line["ppo_step"]),
            moment(line["created_at"]),
            decimal(line["size_bytes"]),
            line["reason"],
            _score(line["val_score"]),
        )
    console().print(going)
    freed = decimal(document["freed_bytes"])
    say(f"to be deleted: {len(gone)} ({freed}); kept: {len(document['kept'])}")


def print_pruned(document: Document) -> None:
    """Print what was deleted."""
    if document["deleted"]:
        say(f"deleted {len(document['deleted'])}")


# export


def policy_state(loaded: LoadedCheckpoint) -> StateDict:
    """Return the policy in a checkpoint.

    Raises:
        UserError: it holds none.
    """
    from ppo_scheduler.policy.soundness import UnsoundPolicy, sound_policy

    try:
        return sound_policy(loaded.tree["learner"]["policy"])
    except (LookupError, TypeError):
        raise UserError(f"{loaded.path}: holds no policy") from None
    except UnsoundPolicy as unsound:
        raise UserError(f"{loaded.path}: its policy {unsound}") from None


def exported(trained: Trained, policy: Path) -> Document:
    """Tell what was exported; the PPO step is not known of a policy's file."""
    return {
        "checkpoint": str(trained.file),
        "ppo_step": None if trained.manifest is None else trained.manifest.ppo_step,
        "policy": str(policy),
        "size_bytes": policy.stat().st_size,
    }


def print_exported(document: Document) -> None:
    """Print what was written."""
    size = decimal(document["size_bytes"])
    step = document["ppo_step"]
    of = document["checkpoint"] if step is None else f"PPO step {step}"
    say(f"wrote {document['policy']} ({size}) of {of}")


# diff


def checkpoint_diff(left: LoadedCheckpoint, right: LoadedCheckpoint) -> Document:
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


def print_checkpoint_diff(document: Document) -> None:
    """Print what differs, least surprising first."""
    a, b = document["a"], document["b"]
    say(f"A {a['path']}\nB {b['path']}", "bold")
    identities = table("", "A", "B", right=())
    for name in (name for name in a if name != "path"):
        sides = (_short(_or_nothing(side[name]), _IDENTITY_WIDTH) for side in (a, b))
        identities.add_row(name, *sides)
    console().print(identities)
    for what in ("settings", "versions"):
        say("")
        _print_differences(what, document[what])
    say("")
    console().print(_parts_table(document["parts"]))
    say("")
    values = [
        {**one, "a": _short(one["a"], _VALUE_WIDTH), "b": _short(one["b"], _VALUE_WIDTH)}
        for part in document["parts"]
        for one in part["values"]
    ]
    _print_differences("counters and other values", values)


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


def _difference(one: LeafDifference) -> Document:
    document: Document = {"name": one.name, "a": one.left, "b": one.right}
    if one.max_abs is not None:
        document["max_abs"] = one.max_abs
    return document


def _print_differences(what: str, differences: Sequence[Document]) -> None:
    if not differences:
        say(f"{what}: equal")
        return
    both = table(what, "A", "B", right=())
    for one in differences[:_LISTED]:
        both.add_row(one["name"], one["a"], one["b"])
    console().print(both)
    if len(differences) > _LISTED:
        say(f"… and {len(differences) - _LISTED} more; --json lists all", "dim")


def _parts_table(parts: Sequence[Document]) -> Table:
    headers = ("tensors of", "equal", "reshaped", "changed", "at most", "where")
    states = table(*headers, right=(1, 2, 3, 4))
    for part in parts:
        changed = part["changed_tensors"]
        worst = max(changed, key=lambda one: _rank(one["max_abs"]), default=None)
        states.add_row(
            part["name"],
            str(part["equal_tensors"]),
            str(len(part["reshaped_tensors"])),
            str(len(changed)),
            DASH if worst is None else f"{worst['max_abs']:.3g}",
            "" if worst is None else worst["name"].removeprefix(f"{part['name']}."),
        )
    return states


def _rank(change: float) -> float:
    return math.inf if math.isnan(change) else change


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


# what several commands show


def _score(score: float | None) -> str:
    return DASH if score is None else f"{score:.4g}"


def _or_nothing(value: object) -> str:
    return DASH if value is None else str(value)
