"""What ``vidur-ppo checkpoints`` tells: JSON documents, and the same as tables for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ppo_scheduler.checkpoint.reading import Entry, newest, recorded_keep_every
from ppo_scheduler.errors import UserError

if TYPE_CHECKING:
    from ppo_scheduler.checkpoint.diff import LeafDifference, PartDiff
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


def _difference(one: LeafDifference) -> Document:
    document: Document = {"name": one.name, "a": one.left, "b": one.right}
    if one.max_abs is not None:  # JSON knows neither infinity nor NaN
        document["max_abs"] = one.max_abs if math.isfinite(one.max_abs) else str(one.max_abs)
    return document


_NOTHING = "–"
_LINES = 20
_WIDTH = 18
"""Differences of the state that are listed one by one, and characters of each side; ``--json``
has all."""


def print_listing(document: Document) -> None:
    """Print a table per folder, what the marks mean, and what cannot be read."""
    console, lines = _console(), document["checkpoints"]
    if not lines:
        _say(console, f"no checkpoints in {document['folder']}")
        return
    for archive, group in groupby(lines, key=lambda line: line["archive"]):
        folder = Path(document["folder"])
        title = folder if archive is None else folder / "archive" / archive
        _say(console, str(title), "bold")
        console.print(_listing_table(list(group)))
    marks = {"latest": "* what --resume latest continues", "permanent": "P permanent"}
    if legend := [text for mark, text in marks.items() if any(line[mark] for line in lines)]:
        _say(console, ", ".join(legend), "dim")
    for line in lines:
        if line["problem"]:
            _say(console, f"{line['path']}: {line['problem']}", "red")


def print_description(document: Document) -> None:
    """Print manifest, parts and changed settings."""
    console, manifest = _console(), document["manifest"]
    _say(console, document["path"], "bold")
    console.print(_pairs(_facts(manifest)))
    table = _table("part", "tensors", "numbers", "bytes", "other values")
    for part in document["parts"]:
        table.add_row(
            part["name"],
            str(part["tensors"]),
            f"{part['numbers']:,}",
            decimal(part["tensor_bytes"]),
            str(part["values"]),
        )
    console.print()
    console.print(table)
    console.print()
    changed = document["changed_settings"]
    if not manifest["settings"]:
        _say(console, "its settings were not recorded")
    elif not changed:
        _say(console, "all settings are the defaults")
    else:
        settings = _table("setting", "value", "default", right=())
        for one in changed:
            settings.add_row(one["name"], _json_text(one["value"]), _json_text(one["default"]))
        console.print(settings)


def print_verdicts(document: Document) -> None:
    """Print which checkpoints are good."""
    console = _console()
    for result in document["checkpoints"]:
        word, style = ("ok ", "green") if result["ok"] else ("BAD", "red")
        _say(console, f"{word} {result['path']}", style)


def print_pruning(document: Document) -> None:
    """Print what would be deleted."""
    console, gone = _console(), document["deleted"]
    if not gone:
        _say(console, "nothing to delete")
        return
    table = _table("step", "created", "size", "reason", "val score", right=(0, 2, 4))
    for line in gone:
        table.add_row(
            str(line["ppo_step"]),
            line["created_at"].replace("T", " ").removesuffix("+00:00"),
            decimal(line["size_bytes"]),
            line["reason"],
            _score(line["val_score"]),
        )
    console.print(table)
    freed = decimal(document["freed_bytes"])
    _say(console, f"to be deleted: {len(gone)} ({freed}); kept: {len(document['kept'])}")


def print_pruned(document: Document) -> None:
    """Print what was deleted."""
    if document["deleted"]:
        _say(_console(), f"deleted {len(document['deleted'])}")


def print_export(document: Document) -> None:
    """Print what was written."""
    _say(
        _console(),
        f"wrote {document['policy']} ({decimal(document['size_bytes'])}) of PPO step "
        f"{document['ppo_step']}",
    )


def print_comparison(document: Document) -> None:
    """Print what differs, least surprising first."""
    console, a, b = _console(), document["a"], document["b"]
    _say(console, f"A {a['path']}\nB {b['path']}", "bold")
    table = _table("", "A", "B", right=())
    for name in (name for name in a if name != "path"):
        table.add_row(name, _short(_plain(a[name]), 28), _short(_plain(b[name]), 28))
    console.print(table)
    for what in ("settings", "versions"):
        console.print()
        _print_differences(console, what, document[what])
    console.print()
    console.print(_parts_table(document["parts"]))
    console.print()
    values = [
        {**one, "a": _short(one["a"]), "b": _short(one["b"])}
        for part in document["parts"]
        for one in part["values"]
    ]
    _print_differences(console, "counters and other values", values)


def _listing_table(lines: Sequence[Document]) -> Table:
    headers = ("", "step", "decisions", "age", "size", "reason", "val score", "run")
    table = _table(*headers, right=(1, 2, 3, 4, 6))
    for line in lines:
        table.add_row(
            ("*" if line["latest"] else "") + ("P" if line["permanent"] else ""),
            str(line["ppo_step"]),
            _plain(line["global_step"]),
            _age(line["age_s"]),
            decimal(line["size_bytes"]),
            line["reason"] or Text("unusable", style="red"),
            _score(line["val_score"]),
            _NOTHING if line["run_dir"] is None else Path(line["run_dir"]).name,
        )
    return table


def _parts_table(parts: Sequence[Document]) -> Table:
    headers = ("tensors of", "equal", "reshaped", "changed", "at most", "where")
    table = _table(*headers, right=(1, 2, 3, 4))
    for part in parts:
        changed = part["changed_tensors"]
        worst = max(changed, key=lambda one: _rank(one["max_abs"]), default=None)
        table.add_row(
            part["name"],
            str(part["equal_tensors"]),
            str(len(part["reshaped_tensors"])),
            str(len(changed)),
            _NOTHING if worst is None else _number(worst["max_abs"]),
            "" if worst is None else worst["name"].removeprefix(f"{part['name']}."),
        )
    return table


def _print_differences(console: Console, what: str, differences: Sequence[Document]) -> None:
    if not differences:
        _say(console, f"{what}: equal")
        return
    table = _table(what, "A", "B", right=())
    for one in differences[:_LINES]:
        table.add_row(one["name"], one["a"], one["b"])
    console.print(table)
    if len(differences) > _LINES:
        _say(console, f"… and {len(differences) - _LINES} more; --json lists all", "dim")


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


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _table(*headers: str, right: Sequence[int] | None = None) -> Table:
    """Return an empty table; by default all columns but the first are aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        is_right = index > 0 if right is None else index in right
        table.add_column(header, justify="right" if is_right else "left", overflow="fold")
    return table


def _pairs(rows: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return table


def _age(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    if seconds < 0:
        return "future"  # the clock went back since
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _score(score: float | None) -> str:
    return _NOTHING if score is None else f"{score:.4g}"


def _plain(value: object) -> str:
    return _NOTHING if value is None else str(value)


def _short(text: str, width: int = _WIDTH) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _rank(change: float | str) -> float:
    return float("inf") if isinstance(change, str) else change


def _number(change: float | str) -> str:
    return change if isinstance(change, str) else f"{change:.3g}"


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
