"""The folder of a suite: what it is of, who works in it, its cells and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import FileLock, disk_errors, write_file
from vidur_ext.suite.plan import RECORD_VERSION, Plan
from vidur_ext.versions import package_versions

_ELSEWHERE = "Choose another --output-dir"


class _Record(BaseModel):
    """What ``suite.json`` says."""

    model_config = ConfigDict(strict=True)

    seeds: int
    tuned: bool
    versions: dict[str, str]
    scenarios: dict[str, dict[str, JsonValue]]


@dataclass(frozen=True)
class SuiteFolder:
    """A folder with one folder per scenario, and in it one per seed."""

    path: Path

    @property
    def record(self) -> Path:
        """What the folder holds results of; it is written before the first cell begins."""
        return self.path / "suite.json"

    @property
    def tuning(self) -> Path:
        """What rivals are told in each scenario, if they are tuned."""
        return self.path / "tuning.json"

    def results(self, kind: str) -> Path:
        """Return the report's file of a kind: json, md, html or png."""
        return self.path / f"results.{kind}"


def open_suite(folder: SuiteFolder, plan: Plan) -> FileLock:
    """Be the only suite in a folder, which is new or holds nothing but parts of this plan.

    Raises:
        UserError: another process works there, the folder holds results of something else or more
            than is planned, or it cannot be written.
    """
    with disk_errors(folder.path, "the suite cannot write there", _ELSEWHERE):
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(
            folder.path / ".suite.lock",
            f"is running a suite there. Wait for it or stop it. {_ELSEWHERE}",
        )
        try:
            wanted = {**plan.record(), "versions": package_versions()}
            if folder.record.exists():
                _check(folder.record, _read(folder.record), wanted)
            write_file(folder.record, (json.dumps(wanted, indent=2) + "\n").encode())
        except BaseException:
            lock.release()
            raise
    return lock


def _read(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_bytes())
        version = record["schema_version"]
        if version == RECORD_VERSION:
            _Record.model_validate(record)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"{file}: is no suite's record, or damaged. {_ELSEWHERE}") from None
    if version != RECORD_VERSION:
        raise UserError(f"{file}: has schema version {version}, not {RECORD_VERSION}. {_ELSEWHERE}")
    return dict(record)


def _check(file: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse what would mix results of different settings, or leave some out."""
    problems = list(_problems(found, wanted))
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise UserError(
            f"{file}: the folder holds another suite:\n{listed}\nA suite may grow by scenarios and "
            f"seeds; restore the rest. {_ELSEWHERE}"
        )


def _problems(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    if found["seeds"] > wanted["seeds"]:
        yield f"{found['seeds']} seeds there, {wanted['seeds']} now: none may be left out"
    if found["tuned"] != wanted["tuned"]:
        yield (
            "with --tune there, without now" if found["tuned"] else "without --tune there, with now"
        )
    for name, version in found["versions"].items():
        now = wanted["versions"].get(name, "none")
        if version != now:
            yield f"{name} {version} there, {now} now"
    for scenario, settings in found["scenarios"].items():
        planned = wanted["scenarios"].get(scenario)
        if planned is None:
            yield f"scenario {scenario} is there and would be left out"
            continue
        for key in sorted({*settings, *planned}):
            there, here = json.dumps(settings.get(key)), json.dumps(planned.get(key))
            if there != here:
                yield f"{scenario}: {key}: {there} there, {here} now"
