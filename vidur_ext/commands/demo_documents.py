"""What ``vidur-ppo demos`` tells of sets, as JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidur_ext.warmstart.demonstration_set import DemonstrationSet
    from vidur_ext.warmstart.demonstrations import Demonstrations
    from vidur_ext.warmstart.set_folders import FoundSet

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
