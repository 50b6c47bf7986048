"""What ``vidur-ppo demos`` tells of sets: JSON values, and the same as tables for a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from vidur_ext.warmstart.demonstrations import Demonstrations
    from vidur_ext.warmstart.sets import DemonstrationSet, FoundSet

Document = dict[str, Any]


def line(one: DemonstrationSet) -> Document:
    """Return path and description of a set."""
    return {"path": str(one.path), **one.description.model_dump(mode="json")}


def listing(place: Path, sets: Sequence[FoundSet]) -> Document:
    """Return the sets that were found; of those without a readable description only the path."""
    return {
        "folder": str(place),
        "sets": [
            {
                **({"path": str(one.path)} if one.found is None else line(one.found)),
                "recognised": one.found is not None,
                "problem": one.problem,
            }
            for one in sets
        ],
    }


def description(one: DemonstrationSet, data: Demonstrations) -> Document:
    """Return a set with its parts: one per teacher and load.

    ``replica_shares`` are the shares of a part's requests that each replica got.
    """
    replicas = data.replicas.shape[1]
    parts = []
    for index, teacher in enumerate(data.teachers):
        for load in one.description.load_levels:
            actions = data.action[(data.teacher == index) & (data.load_level == load)]
            parts.append(
                {
                    "teacher": teacher,
                    "load_level": load,
                    "decisions": len(actions),
                    "replica_shares": [
                        float((actions == replica).sum() / max(1, len(actions)))
                        for replica in range(replicas)
                    ],
                }
            )
    return {
        **line(one),
        "replica_features": len(data.replica_features),
        "context_features": len(data.context_features),
        "parts": parts,
    }


def print_collected(document: Document) -> None:
    """Print where the new set is and how to use it."""
    size = decimal(document["size_bytes"])
    path = document["path"]
    _say(f"{document['decisions']} demonstrations ({size}) in {path}")
    _say(f"use them: {shlex.join(['vidur-ppo', 'train', '--demonstrations', path])}")


def print_listing(document: Document) -> None:
    """Print the sets, and what cannot be used."""
    sets = [one for one in document["sets"] if one["recognised"]]
    if not sets:
        _say(f"no demonstration sets below {document['folder']}")
    else:
        table = _table("set", "decisions", "teachers", "loads", "size", right=(1, 4))
        for one in sets:
            table.add_row(
                # A path in one piece can be copied, even if the rest gets narrow.
                Text(one["path"], style="red" if one["problem"] else "", no_wrap=True),
                str(one["decisions"]),
                ", ".join(one["teachers"]),
                _loads(one["load_levels"]),
                decimal(one["size_bytes"]),
            )
        _console().print(table)
    for one in document["sets"]:
        if one["problem"]:
            _say(f"cannot be used: {one['path']}: {one['problem']}", "red")


def print_description(document: Document) -> None:
    """Print origin, contents and parts of a set."""
    _say(document["path"], "bold")
    facts = {
        "created": _time(document["created_at"]),
        "decisions": document["decisions"],
        "teachers": ", ".join(document["teachers"]),
        "loads": _loads(document["load_levels"]),
        "workload": document["workload"],
        "replicas": document["num_replicas"],
        "seed": document["seed"],
        "engine": document["engine"],
        "features": f"{document['replica_features']} per replica, "
        f"{document['context_features']} in common (digest {document['schema_digest']})",
        "observation": ", ".join(f"{name} {v}" for name, v in document["observation"].items()),
        "versions": ", ".join(f"{name} {text}" for name, text in document["versions"].items()),
        "size": decimal(document["size_bytes"]),
        "sha256": f"{document['sha256']} (verified)",
    }
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in facts.items():
        grid.add_row(Text(name, style="dim"), Text(str(value), overflow="fold"))
    _console().print(grid)
    _say("")
    table = _table("teacher", "load", "decisions", "to each replica", right=(1, 2))
    for part in document["parts"]:
        shares = " ".join(f"{share:.0%}" for share in part["replica_shares"])
        table.add_row(part["teacher"], f"{part['load_level']:g}", str(part["decisions"]), shares)
    _console().print(table)


def print_deleted(document: Document) -> None:
    """Print what was deleted, and which folders stay because something else is in them."""
    count = len(document["deleted"])
    _say(f"deleted {count} {'set' if count == 1 else 'sets'}")
    for path in document["folders_kept"]:
        _say(f"{path}: the folder stays, it holds other files")


def _loads(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)


def _time(text: str) -> str:
    return text.replace("T", " ").removesuffix("+00:00")


def _table(*headers: str, right: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for index, header in enumerate(headers):
        is_right = index in right
        table.add_column(header, justify="right" if is_right else "left", overflow="fold")
    return table


def _console() -> Console:
    return Console(highlight=False, markup=False, emoji=False)


def _say(text: str, style: str = "") -> None:
    _console().print(Text(text, style=style), soft_wrap=True)
