"""Demonstrations: what the policy would have seen, what was chosen, and what each choice costs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import write_file
from ppo_scheduler.observation import Observation, ObservationSchema
from ppo_scheduler.policy.past_observations import migrate_rows

_FORMAT = 2
_ARRAYS = ("replicas", "context", "action", "teacher", "load_level", "costs")


@dataclass(frozen=True)
class Demonstrations:
    """N decisions of R replicas.

    replicas: float32 [N, R, F]; context: float32 [N, C]; action: int64 [N];
    teacher: int64 [N], index into ``teachers``; load_level: float64 [N]; costs: float32 [N, R],
    request-seconds of every choice of which only differences mean anything, or [N, 0] where
    choices are demonstrated without their costs.
    """

    replica_features: tuple[str, ...]
    context_features: tuple[str, ...]
    teachers: tuple[str, ...]
    replicas: NDArray[np.float32]
    context: NDArray[np.float32]
    action: NDArray[np.int64]
    teacher: NDArray[np.int64]
    load_level: NDArray[np.float64]
    costs: NDArray[np.float32]

    @property
    def priced(self) -> bool:
        """Whether they say what every choice costs."""
        return self.costs.shape[1] > 0

    def __len__(self) -> int:
        return len(self.action)

    def observation(self) -> Observation:
        """Return all demonstrated states as one batch, without telemetry."""
        return Observation(
            self.replicas.astype(np.float64),
            self.context.astype(np.float64),
            np.zeros((len(self), 0)),
        )

    def save(self, path: Path) -> None:
        """Write an ``.npz`` without pickles, atomically and durably."""
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        np.savez_compressed(
            file,
            format=np.array(_FORMAT),
            replica_features=np.array(self.replica_features),
            context_features=np.array(self.context_features),
            teachers=np.array(self.teachers),
            **{name: getattr(self, name) for name in _ARRAYS},
        )
        write_file(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> Demonstrations:
        """Read a file written by ``save``, of this or an earlier version.

        Raises:
            UserError: the file is missing, damaged, or of another format.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                content: dict[str, Any] = {name: file[name] for name in file.files}
            if int(content["format"]) == 1:  # it knew no costs
                content["costs"] = np.zeros((len(content["action"]), 0), dtype=np.float32)
            elif int(content["format"]) != _FORMAT:
                raise KeyError(f"format {int(content['format'])}")
            if content["replicas"].shape[2] != len(content["replica_features"]):
                raise ValueError("replicas has other columns than replica_features")
            names, content["replicas"] = migrate_rows(
                tuple(content["replica_features"].tolist()), content["replicas"]
            )
            loaded = cls(
                replica_features=names,
                context_features=tuple(content["context_features"].tolist()),
                teachers=tuple(content["teachers"].tolist()),
                **{name: content[name] for name in _ARRAYS},
            )
            loaded._check()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; collect demonstrations first") from None
        except Exception as error:  # strange bytes make the readers fail in any way
            raise UserError(
                f"{path}: not a demonstration file of this version "
                f"({type(error).__name__}: {error}); collect anew"
            ) from error
        return loaded

    def _check(self) -> None:
        """Raise ``ValueError`` unless every column is what the class says of it."""
        for names in (self.replica_features, self.context_features, self.teachers):
            if not names or not all(isinstance(name, str) for name in names):
                raise ValueError("the features or teachers have no names")
        count, replicas = np.shape(self.replicas)[0], np.shape(self.replicas)[1]
        priced = np.shape(self.costs)[-1] > 0
        expected: dict[str, tuple[type, tuple[int, ...]]] = {
            "replicas": (np.float32, (count, replicas, len(self.replica_features))),
            "context": (np.float32, (count, len(self.context_features))),
            "action": (np.int64, (count,)),
            "teacher": (np.int64, (count,)),
            "load_level": (np.float64, (count,)),
            "costs": (np.float32, (count, replicas * priced)),
        }
        for name, (dtype, shape) in expected.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != shape or not np.isfinite(column).all():
                raise ValueError(f"{name} is not of finite {np.dtype(dtype)} {list(shape)}")
        for name, choices in (("action", replicas), ("teacher", len(self.teachers))):
            column = getattr(self, name)
            if count == 0 or column.min() < 0 or column.max() >= choices:
                raise ValueError(f"{name} is not from 0 to {choices - 1}")

    def check_schema(self, schema: ObservationSchema) -> None:
        """Raise ``UserError`` unless the demonstrations show what the policy sees."""
        if (self.replica_features, self.context_features) != (schema.replica, schema.context):
            here = {*schema.replica, *schema.context}
            there = {*self.replica_features, *self.context_features}
            raise UserError(
                "the demonstrations show other features than the configured observation: "
                f"missing {sorted(here - there)}, unknown {sorted(there - here)}; collect them "
                "anew or set the observation group as it was"
            )


def concatenate(parts: list[Demonstrations]) -> Demonstrations:
    """Join demonstrations of one schema; teachers are told apart by name."""
    assert parts, "nothing to join"
    first = parts[0]
    names = tuple(dict.fromkeys(name for part in parts for name in part.teachers))
    renumber = [np.array([names.index(name) for name in part.teachers]) for part in parts]
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in _ARRAYS
        if name != "teacher"
    }
    teacher = np.concatenate([new[part.teacher] for new, part in zip(renumber, parts, strict=True)])
    return Demonstrations(
        first.replica_features, first.context_features, names, teacher=teacher, **joined
    )
