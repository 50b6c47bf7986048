"""Demonstration sets: demonstrations in a folder of their own, with a description to read.

``demonstration_set.json`` says what ``demonstrations.npz`` beside it holds, and its SHA-256. Sets
are written whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, move, write_file
from ppo_scheduler.policy.past_observations import present_digest
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.versions import package_versions
from vidur_ext.warmstart.demonstrations import Demonstrations

DESCRIPTION_FILE = "demonstration_set.json"
DATA_FILE = "demonstrations.npz"
KIND = "ppo_scheduler demonstrations"
SET_VERSION = 1
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
    """Arrival rates relative to the workload's; every teacher is there at every one."""
    decisions: int = Field(ge=1)
    """Of all teachers and loads together."""
    priced: bool = False
    """Whether the cost of every choice is in it; sets were written before there were any."""
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

    @model_validator(mode="after")
    def _can_be_printed(self) -> SetDescription:
        """Refuse texts that a terminal would take for commands."""
        texts = (*self.teachers, self.workload, self.engine, *self.versions, *self.observation)
        if not all(text.isprintable() for text in (*texts, *self.versions.values())):
            raise ValueError("it holds texts that cannot be printed")
        return self

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
        """Raise ``UserError`` unless a warm start of this config can learn from the set."""
        here = recorded_keys(config.observation)
        # Keys that are younger than a set were as they are by default now.
        there = {**recorded_keys(ObservationSection()), **self.description.observation}
        differing = [
            f"{name} is {there.get(name)!r} in the set and {here.get(name)!r} in this config"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]
        digest = observation_schema(config.observation).digest()
        if not differing and digest != present_digest(self.description.schema_digest):
            differing = [f"its features have digest {self.description.schema_digest}, not {digest}"]
        if differing:
            raise UserError(
                f"{self.path}: shows another observation than this config: {'; '.join(differing)}. "
                "Set the observation group as it was, or collect a new set with this config "
                "(vidur-ppo demos collect)"
            )
        if config.warmstart.method == "costs":
            self._check_costs(config)

    def _check_costs(self, config: TrainingConfig) -> None:
        said, section = self.description, config.warmstart
        ways_out = (
            'set warmstart.method to "imitation", or collect a new set (vidur-ppo demos collect)'
        )
        if not said.priced:
            raise UserError(
                f"{self.path}: shows what was chosen, not what every choice costs, which "
                f'warmstart.method="costs" learns from: {ways_out}'
            )
        here = config.cluster.num_replicas
        if said.num_replicas != here and section.rounds > 1:
            raise UserError(
                f"{self.path}: shows {said.num_replicas} replicas, and the rounds after it would "
                f"show {here}: set warmstart.rounds to 1, {ways_out}"
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
    if document.get("schema_version") != SET_VERSION:
        raise UserError(
            f"{file}: has schema_version {document.get('schema_version')!r}, this program reads "
            f"{SET_VERSION}: use the program that wrote it, or collect anew"
        )
    try:
        return SetDescription.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "as a whole"
        raise UserError(f"{file}: is damaged ({where}: {first['msg']}); collect anew") from None


SETS = "demonstrations"
"""Folder of the sets below the output root."""


@dataclass(frozen=True)
class FoundSet:
    """A folder that holds a set, or a description that cannot be read."""

    path: Path
    found: DemonstrationSet | None
    problem: str | None
    """Why it cannot be used, as far as can be told without reading the data."""


def new_set_path(output_root: Path, now: datetime) -> Path:
    """Return a free ``output_root/demonstrations/set_<YYYYmmdd_HHMMSS>``."""
    stem = f"set_{now:%Y%m%d_%H%M%S}"
    path, attempt = output_root / SETS / stem, 1
    while os.path.lexists(path):
        attempt += 1
        path = path.with_name(f"{stem}_{attempt}")
    return path


@contextmanager
def staged_set(target: Path) -> Iterator[Path]:
    """Give a hidden folder that becomes ``target`` if the block ends well, and is gone otherwise.

    It is made before the block runs, so that nobody waits for what cannot be written.

    Raises:
        UserError: ``target`` is in use, or cannot be written.
    """
    # Only an absolute path has a name for certain ("." has none).
    target = Path(os.path.abspath(target))
    staging = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    refused = "the demonstrations cannot be written there", "Choose another --output-dir"
    with disk_errors(target, *refused):
        if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
            raise UserError(
                f"{target}: exists and is no empty folder. Choose another --output-dir, leave it "
                "out for a new folder, or delete an old set with vidur-ppo demos clean"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
    try:
        yield staging
        with disk_errors(target, *refused):
            move(staging, target)
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def write_set(
    folder: Path,
    demonstrations: Demonstrations,
    config: TrainingConfig,
    workload: str,
    now: datetime,
) -> SetDescription:
    """Write data and description into an empty folder.

    Args:
        workload: the workload of the config in words.
        now: with its UTC offset.
    """
    with disk_errors(folder, "the demonstrations were not written", "Free space or rights there"):
        demonstrations.save(folder / DATA_FILE)
        data = (folder / DATA_FILE).read_bytes()
        description = SetDescription(
            created_at=now.isoformat(timespec="seconds"),
            teachers=demonstrations.teachers,
            load_levels=tuple(dict.fromkeys(demonstrations.load_level.tolist())),
            decisions=len(demonstrations),
            priced=demonstrations.priced,
            num_replicas=demonstrations.replicas.shape[1],
            seed=config.training.seed,
            workload=workload,
            engine=config.simulation.engine,
            observation=recorded_keys(config.observation),
            schema_digest=observation_schema(config.observation).digest(),
            versions=package_versions(),
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
        write_file(folder / DESCRIPTION_FILE, description.to_json())
    return description


def find_sets(place: Path) -> list[FoundSet]:
    """Return the set in a folder, or all below it, oldest first; what has no description last.

    Links and hidden folders are not followed.

    Raises:
        UserError: there is no such folder, or a folder below it cannot be read.
    """
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder; name one that holds demonstration sets")
    sets = []
    for folder, below, files in os.walk(place, onerror=_unreadable):
        if DESCRIPTION_FILE in files:
            sets.append(_look(Path(folder)))
        below[:] = [name for name in below if not name.startswith(".")]
    return sorted(sets, key=_age_order)


def delete_set(one: DemonstrationSet) -> bool:
    """Delete the two files of a set and its folder; return whether the folder is gone.

    It stays, with whatever else is in it. The description goes last: interrupted, there is still a
    set to delete.

    Raises:
        UserError: the disk refuses.
    """
    with disk_errors(one.path, "the set was not deleted", "Check the rights of the folder"):
        one.data.unlink(missing_ok=True)
        (one.path / DESCRIPTION_FILE).unlink()
        alone = not any(one.path.iterdir())
        if alone:
            one.path.rmdir()
    return alone


def _look(folder: Path) -> FoundSet:
    try:
        found = open_set(folder)
    except UserError as error:
        return FoundSet(folder, None, str(error))
    return FoundSet(folder, found, found.problem())


def _age_order(one: FoundSet) -> tuple[bool, datetime, str]:
    if one.found is None:
        return True, datetime.min, str(one.path)
    return False, datetime.fromisoformat(one.found.description.created_at), str(one.path)


def _unreadable(error: OSError) -> NoReturn:
    raise UserError(
        f"{error.filename}: cannot be searched for demonstration sets ({error.strerror}); name "
        "another folder"
    ) from error
