"""A demonstration set: demonstrations in a folder of their own, with a description to read.

``demonstration_set.json`` says what ``demonstrations.npz`` beside it holds, and its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ppo_scheduler.checkpoint.disk import disk_errors
from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.errors import UserError
from vidur_ext.env.schema import observation_schema
from vidur_ext.warmstart.demonstrations import Demonstrations

DESCRIPTION_FILE = "demonstration_set.json"
DATA_FILE = "demonstrations.npz"
KIND = "ppo_scheduler demonstrations"
SCHEMA_VERSION = 1
_NOT_RECORDED = {"clip"}
"""Keys of the observation group that change what a policy makes of a state, not the state."""


class SetDescription(BaseModel):
    """What a set holds and where it comes from."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    kind: Literal["ppo_scheduler demonstrations"] = "ppo_scheduler demonstrations"
    schema_version: Literal[1] = 1
    created_at: str
    """ISO 8601 with offset."""
    teachers: tuple[str, ...]
    load_levels: tuple[float, ...]
    """Arrival rates relative to the workload's; every teacher routed at every one."""
    decisions: int = Field(ge=1)
    """Of all teachers and loads together."""
    num_replicas: int = Field(ge=1)
    seed: int = Field(ge=0)
    workload: str
    engine: str
    observation: dict[str, Any]
    """Keys of the config's observation group that the recorded states depend on."""
    schema_digest: str
    """Of the names of the features (``ObservationSchema.digest``)."""
    versions: dict[str, str]
    size_bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("created_at")
    @classmethod
    def _has_an_offset(cls, text: str) -> str:
        if datetime.fromisoformat(text).tzinfo is None:
            raise ValueError("the time lacks its UTC offset")
        return text

    def to_json(self) -> bytes:
        text = json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False)
        return f"{text}\n".encode()


@dataclass(frozen=True)
class DemonstrationSet:
    """A recognised set; its data may still be damaged."""

    path: Path
    description: SetDescription

    @property
    def data(self) -> Path:
        return self.path / DATA_FILE

    def problem(self) -> str | None:
        """Return why the data cannot be what is described, from its size alone."""
        if not self.data.is_file():
            return f"{DATA_FILE} is missing"
        there, said = self.data.stat().st_size, self.description.size_bytes
        return None if there == said else f"{DATA_FILE} has {there} bytes, not {said}"

    def check(self, config: TrainingConfig) -> None:
        """Raise ``UserError`` unless a policy of this config can be cloned from the set."""
        here, there = recorded_keys(config.observation), self.description.observation
        differing = [
            f"{name} is {there.get(name)!r} in the set and {here.get(name)!r} in this config"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        digest = observation_schema(config.observation).digest()
        if not differing and digest != self.description.schema_digest:
            differing = [f"its features have digest {self.description.schema_digest}, not {digest}"]
        if differing:
            raise UserError(
                f"{self.path}: shows another observation than this config: {'; '.join(differing)}. "
                "Set the observation group as it was, or collect a new set with this config "
                "(vidur-ppo demos collect)"
            )

    def load(self) -> Demonstrations:
        """Return the demonstrations, verified.

        Raises:
            UserError: the data is missing or is not what was written.
        """
        way_out = "Restore the set from a backup, or collect a new one (vidur-ppo demos collect)"
        with disk_errors(self.data, "the demonstrations cannot be read", way_out):
            digest = hashlib.sha256(self.data.read_bytes()).hexdigest()
        if digest != self.description.sha256:
            raise UserError(
                f"{self.data}: damaged: its SHA-256 is not the one in {DESCRIPTION_FILE}. {way_out}"
            )
        return Demonstrations.load(self.data)


def recorded_keys(section: ObservationSection) -> dict[str, Any]:
    """Return the keys that recorded states depend on."""
    return section.model_dump(mode="json", exclude=_NOT_RECORDED)


def open_set(path: Path) -> DemonstrationSet:
    """Return the set in a folder, by its description alone.

    Raises:
        UserError: there is no set, or its description is damaged or of another version.
    """
    file = path / DESCRIPTION_FILE
    if not file.is_file():
        raise UserError(
            f"{path}: is no demonstration set, there is no {DESCRIPTION_FILE} in it; "
            "vidur-ppo demos list shows the sets there are, vidur-ppo demos collect makes one"
        )
    with disk_errors(file, "the description cannot be read", "Check its rights"):
        content = file.read_bytes()
    return DemonstrationSet(path, _parse(content, file))


def _parse(content: bytes, file: Path) -> SetDescription:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is damaged, it is not JSON ({error}); collect anew") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UserError(f"{file}: does not describe demonstrations (its kind is not {KIND!r})")
    if document.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{file}: has schema_version {document.get('schema_version')!r}, this program reads "
            f"{SCHEMA_VERSION}: use the program that wrote it, or collect anew"
        )
    try:
        return SetDescription.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise UserError(f"{file}: is damaged ({where}: {first['msg']}); collect anew") from None
