"""What a training saved, and the cluster that it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from ppo_scheduler.checkpoint.manifest import Manifest
from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from ppo_scheduler.state import StateDict
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder

_FEATURES_DEPEND_ON = (
    "observation.",
    "cluster.",
    "simulation.",
    "workload.max_tokens",
    "lookahead.",
)
"""Keys of the config, or how they begin."""


@dataclass(frozen=True)
class Trained:
    """What a training saved: a policy's state, its file, and the manifest of a checkpoint."""

    state: StateDict
    file: Path
    manifest: Manifest | None

    def config(self) -> TrainingConfig:
        """Return the config of the cluster that it was trained for.

        Raises:
            UserError: nothing says what it was.
        """
        if self.manifest is not None:
            return _trained_for(self.file, self.manifest)
        beside = RunFolder(self.file.parent).config
        if not beside.exists():
            raise UserError(
                f"{self.file}: no {beside.name} beside it says what the policy sees: name the "
                "config of its run with --config"
            )
        return load_config(beside)

    def facts(self) -> dict[str, JsonValue]:
        """Return where it comes from, for people."""
        if self.manifest is None:
            return {"file": self.file.name}
        known = ("file", "ppo_step", "global_step", "run_dir", "created_at", "versions")
        return self.manifest.model_dump(mode="json", include=set(known))


def _trained_for(file: Path, manifest: Manifest) -> TrainingConfig:
    """Return the config of a checkpoint's cluster and of what its policy sees of it.

    What has nothing to do with features has its default: an earlier version may have called it
    otherwise. What can be trained together is not asked, for nothing is trained.
    """
    groups: dict[str, dict[str, Any]] = {}
    for key, value in manifest.settings.items():
        if key.startswith(_FEATURES_DEPEND_ON):
            group, name = key.split(".")
            groups.setdefault(group, {})[name] = value
    if "observation" not in groups or "cluster" not in groups:
        raise UserError(
            f"{file}: does not say what it was trained with: name its config with --config"
        )
    defaults = TrainingConfig()
    return defaults.model_copy(
        update={
            group: _section(file, group, type(getattr(defaults, group)), keys)
            for group, keys in groups.items()
        }
    )


def _section(file: Path, group: str, kind: type[Section], keys: dict[str, Any]) -> Section:
    """Return a group of the config of a checkpoint."""
    try:
        return kind.model_validate_json(to_json(keys))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in (group, *first["loc"]))
        raise UserError(
            f"{file}: was trained with settings of an earlier version ({where}: {first['msg']}): "
            "name a config of its cluster with --config"
        ) from None
