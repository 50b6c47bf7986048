"""With which settings a run goes on: with its own, but for what the command line says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import apply_overrides, config_of_settings, load_config
from vidur_ext.config.training_config import TrainingConfig

_OF_THIS_START = (
    "training.output_root",
    "checkpointing.checkpoint_dir",
    "checkpointing.resume_from_checkpoint",
    "checkpointing.resume_step",
    "checkpointing.fork_from_checkpoint",
    "checkpointing.on_incompatible",
)
"""Where the run lies now, and how this start begins: neither is a setting of the run."""


@dataclass(frozen=True)
class CommandLine:
    """What the command line says of the config."""

    file: Path | None = None
    """The config it names; None names none, then the program's own says nothing to a run."""
    overrides: tuple[str, ...] = ()
    """Texts ``group.key=value``, of flags and ``--set``."""


NOTHING_SAID = CommandLine()


@dataclass(frozen=True)
class Resumed:
    """A config to go on with."""

    config: TrainingConfig
    kept: tuple[str, ...] = ()
    """What the present config says otherwise and does not count, one line per key."""


def resumed_config(
    saved: Mapping[str, Any],
    present: TrainingConfig,
    said: CommandLine,
    file_then: TrainingConfig | None,
) -> Resumed:
    """Return the run's own config with what was changed on purpose.

    On purpose is what a flag or ``--set`` says, and what the named file says otherwise than the
    file that the run was started with: flags of then that were left out today changed nothing.

    Args:
        saved: the run's settings by dotted name; without any the present ones count.
        present: file and command line of this start.
        file_then: the file alone that the run was started with; None if that is not known.

    Raises:
        UserError: together they are no config.
    """
    if not saved:
        return Resumed(present)
    meant = {*_OF_THIS_START, *_overridden(said), *_changed_in_file(said, file_then)}
    settings, kept = present.settings(), []
    for name, now in present.settings().items():
        if name in meant or name not in saved:
            continue
        settings[name] = saved[name]
        if saved[name] != now:
            own, other = json.dumps(saved[name]), json.dumps(now)
            kept.append(f"{name}: {own} as the run has it; {other} in the config, not taken over")
    return Resumed(config_of_settings(settings, "the run's settings and command line"), tuple(kept))


def config_of_file(path: Path | None) -> TrainingConfig | None:
    """Return what a config file says by itself; None if that is nothing, or no config."""
    if path is None or not path.exists():
        return None
    try:
        return load_config(path)
    except UserError:  # with the command line it was one, or else that has been said
        return None


def _overridden(said: CommandLine) -> set[str]:
    return {".".join(path) for path in apply_overrides({}, said.overrides)}


def _changed_in_file(said: CommandLine, then: TrainingConfig | None) -> set[str]:
    now = config_of_file(said.file)
    if now is None or then is None:
        return set()
    before = then.settings()
    return {name for name, value in now.settings().items() if before[name] != value}
