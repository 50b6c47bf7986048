"""Names in a checkpoint folder, and the policies that need nothing but names: which checkpoints
stay.

``checkpoint_step_00000128.pt`` holds the state after 128 PPO steps. When the same step is saved
again, the earlier file is called ``checkpoint_step_00000128.superseded.pt`` until the new one is
complete; it is the older of the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ppo_scheduler.config.learner_sections import CheckpointingSection

LATEST = "latest.pt"
ARCHIVE = "archive"
LOCK = ".lock"
PROBE = ".probe"

_PATTERN = re.compile(r"checkpoint_step_(\d{8,})(\.superseded)?\.(pt|json)")
_STAGED = re.compile(r"\.(checkpoint_step_|latest\.|\.probe).*\.tmp")


@dataclass(frozen=True, order=True)
class CheckpointName:
    """A checkpoint in its folder; names sort from the oldest to the newest."""

    step: int
    current: bool = True
    """False for the superseded one of two of the same step."""

    @property
    def file(self) -> str:
        return f"{self._stem}.pt"

    @property
    def manifest(self) -> str:
        return f"{self._stem}.json"

    @property
    def superseded(self) -> CheckpointName:
        return CheckpointName(self.step, current=False)

    @property
    def _stem(self) -> str:
        return f"checkpoint_step_{self.step:08d}" + ("" if self.current else ".superseded")


def parse(file: str) -> CheckpointName | None:
    """Return the checkpoint a ``.pt`` or ``.json`` file belongs to, None for any other file."""
    match = _PATTERN.fullmatch(file)
    if match is None:
        return None
    name = CheckpointName(int(match[1]), current=match[2] is None)
    return name if file in (name.file, name.manifest) else None


def is_staged(file: str) -> bool:
    """Tell whether this is the name of a file of a checkpoint folder that is not whole yet."""
    return _STAGED.fullmatch(file) is not None


def present(files: Iterable[str]) -> list[CheckpointName]:
    """Return every checkpoint among the files, with or without a manifest, oldest first."""
    return sorted(name for file in files if (name := parse(file)) and file == name.file)


def complete(files: Iterable[str]) -> list[CheckpointName]:
    """Return the checkpoints with a manifest, oldest first."""
    known = set(files)
    return [name for name in present(known) if name.manifest in known]


def orphaned_manifests(files: Iterable[str]) -> list[str]:
    """Return the manifests without a checkpoint, which an interruption leaves behind."""
    known = set(files)
    names = {name for file in known if (name := parse(file))}
    return sorted(n.manifest for n in names if n.manifest in known and n.file not in known)


def not_past_of(
    origin: CheckpointName | None, names: Iterable[CheckpointName]
) -> list[CheckpointName]:
    """Return what does not belong to the past of a training that continues from ``origin``.

    A training only ever counts up: later steps are another future of the same past (or were
    skipped as damaged). None is a training that continues nothing in this folder.
    """
    return sorted(name for name in names if origin is None or name > origin)


Scores = Mapping[CheckpointName, float | None]
"""Validation score of each complete checkpoint, greater is better; None without one."""


@dataclass(frozen=True)
class Retention:
    """The newest checkpoint always stays: it is what a resume continues."""

    strategy: Literal["last_n", "top_k_val"]
    keep: int | None
    """How many stay besides the permanent ones; None is all."""
    keep_every: int | None = None
    """Steps that are multiples of it are permanent."""

    @classmethod
    def of(cls, section: CheckpointingSection) -> Retention:
        """Return what the config asks for."""
        keep = section.max_checkpoints if section.incremental_checkpoints else 1
        return cls(section.checkpoint_strategy, keep, section.keep_every)

    @property
    def needs_scores(self) -> bool:
        return self.strategy == "top_k_val" and self.keep is not None

    def outdated(self, scores: Scores) -> list[CheckpointName]:
        """Return what to delete, oldest first.

        A superseded checkpoint goes as soon as the one that replaced it is there.
        """
        names = sorted({name.step: name for name in sorted(scores)}.values())
        kept = set(names) if self.keep is None else self._chosen(names, scores, self.keep)
        if self.keep_every is not None:
            kept.update(name for name in names if name.step % self.keep_every == 0)
        return sorted(set(scores) - kept)

    def _chosen(
        self, names: list[CheckpointName], scores: Scores, keep: int
    ) -> set[CheckpointName]:
        if self.strategy == "last_n":
            return set(names[-keep:])
        scored = [(score, name) for name in names if (score := scores[name]) is not None]
        best = [name for _, name in sorted(scored)[-keep:]]  # of equal scores the later
        return {*best, *names[-1:]}
