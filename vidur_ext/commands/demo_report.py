"""What ``vidur-ppo demos`` tells, command by command: a JSON document, then the same for a
terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.text import Text

from ppo_scheduler.errors import printable
from vidur_ext.commands.printing import Document, console, facts_table, moment, say, table

if TYPE_CHECKING:
    from vidur_ext.warmstart.demonstrations import Demonstrations
    from vidur_ext.warmstart.sets import DemonstrationSet, FoundSet


# collect


def collected_set(one: DemonstrationSet) -> Document:
    """Return path and description of a set."""
    return {"path": str(one.path), **one.description.model_dump(mode="json")}


def print_collected_set(document: Document) -> None:
    """Print where the new set is and how to use it."""
    size = decimal(document["size_bytes"])
    path = document["path"]
    say(f"{document['decisions']} demonstrations ({size}) in {path}")
    say(f"use them: {shlex.join(['vidur-ppo', 'train', '--demonstrations', path])}")


# info


def set_contents(one: DemonstrationSet, data: Demonstrations) -> Document:
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
        **collected_set(one),
        "replica_features": len(data.replica_features),
        "context_features": len(data.context_features),
        "parts": parts,
    }


def print_set_contents(document: Document) -> None:
    """Print origin, contents and parts of a set."""
    say(document["path"], "bold")
    facts = {
        "created": moment(document["created_at"]),
        "decisions": str(document["decisions"]),
        "teachers": ", ".join(document["teachers"]),
        "costs": "of every choice" if document["priced"] else "none, only what was chosen",
        "loads": _loads(document["load_levels"]),
        "workload": document["workload"],
        "replicas": str(document["num_replicas"]),
        "seed": str(document["seed"]),
        "engine": document["engine"],
        "features": f"{document['replica_features']} per replica, "
        f"{document['context_features']} in common (digest {document['schema_digest']})",
        "observation": ", ".join(f"{name} {v}" for name, v in document["observation"].items()),
        "versions": ", ".join(f"{name} {text}" for name, text in document["versions"].items()),
        "size": decimal(document["size_bytes"]),
        "sha256": f"{document['sha256']} (verified)",
    }
    console().print(facts_table(facts))
    say("")
    parts = table("teacher", "load", "decisions", "to each replica", right=(1, 2))
    for part in document["parts"]:
        shares = " ".join(f"{share:.0%}" for share in part["replica_shares"])
        parts.add_row(part["teacher"], f"{part['load_level']:g}", str(part["decisions"]), shares)
    console().print(parts)


# list, and clean before it asks


def sets_found(place: Path, sets: Sequence[FoundSet]) -> Document:
    """Return the sets that were found; of those without a readable description only the path."""
    return {
        "folder": str(place),
        "sets": [
            {
                **({"path": str(one.path)} if one.found is None else collected_set(one.found)),
                "recognised": one.found is not None,
                "problem": one.problem,
            }
            for one in sets
        ],
    }


def print_sets_found(document: Document) -> None:
    """Print the sets, and what cannot be used."""
    sets = [one for one in document["sets"] if one["recognised"]]
    if not sets:
        say(f"no demonstration sets below {document['folder']}")
    else:
        found = table("set", "decisions", "teachers", "costs", "loads", "size", right=(1, 5))
        for one in sets:
            found.add_row(
                # A path in one piece can be copied, even if the rest gets narrow.
                Text(printable(one["path"]), style="red" if one["problem"] else "", no_wrap=True),
                str(one["decisions"]),
                ", ".join(one["teachers"]),
                "yes" if one["priced"] else "no",
                _loads(one["load_levels"]),
                decimal(one["size_bytes"]),
            )
        console().print(found)
    for one in document["sets"]:
        if one["problem"]:
            say(f"cannot be used: {one['path']}: {one['problem']}", "red")


def print_deleted_sets(document: Document) -> None:
    """Print what was deleted, and which folders stay because something else is in them."""
    count = len(document["deleted"])
    say(f"deleted {count} {'set' if count == 1 else 'sets'}")
    for path in document["folders_kept"]:
        say(f"{path}: the folder stays, it holds other files")


def _loads(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)
