"""Settings of the rivals, chosen on validation workloads: as many tries for each of them.

What a heuristic is told (``config.routers``) was right for somebody's traffic. To beat it with
settings that do not fit a workload proves nothing, so the suite looks for better ones, where it
also looks for L: on validation workloads, never on those of the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from ppo_scheduler.files import disk_errors, write_file
from vidur_ext.config.fields import limits
from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.metrics import counted_e2e
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.processes import map_unordered
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import validation_table

TRIES = 32
"""Settings of each rival, those of the config the first."""

WORKLOADS, REQUESTS = 16, 2048
"""Validation workloads, and requests of each; a trace may have fewer."""

_OCTAVES = 4.0
"""Settings without a natural upper end go so far from their defaults, up and down."""


@dataclass(frozen=True)
class Tuned:
    """What a heuristic is told, and its mean E2E on the validation workloads [s].

    Attributes:
        settings: all keys of its section in ``config.routers``.
        e2e_s: with these settings.
        untuned_e2e_s: with those of the config.
    """

    settings: dict[str, float]
    e2e_s: float
    untuned_e2e_s: float


Tuning = dict[str, Tuned]
"""By heuristic."""

_RECORD = TypeAdapter(dict[str, Tuning])


def tunable(config: TrainingConfig) -> list[str]:
    """Return which of the compared heuristics have settings."""
    return [n for n in config.evaluation.schedulers if n in RoutersSection.model_fields]


def check_tunable(scenarios: Mapping[str, TrainingConfig]) -> None:
    """Raise ``UserError`` unless there are rivals to tune, where they can be simulated quickly."""
    for name, config in scenarios.items():
        if tunable(config) and config.simulation.engine != "compiled":
            raise UserError(
                f"scenario {name}: rivals are tuned on the compiled engine, not on "
                f'"{config.simulation.engine}": set simulation.engine to "compiled", or leave '
                "--tune out"
            )
    if not any(tunable(config) for config in scenarios.values()):
        raise UserError(
            f"--tune: {', '.join(scenarios)} compare no heuristic that has settings (config group "
            "routers): leave it out, or name one in evaluation.schedulers"
        )


def tuned_scenarios(
    file: Path,
    scenarios: Mapping[str, TrainingConfig],
    processes: int,
    show: Callable[[str, int, int], None],
) -> dict[str, Tuning]:
    """Tune the rivals of every scenario; what a file says of some is not looked for again.

    Args:
        file: is written anew after each scenario.
        show: called with a scenario, how many of its rivals are tuned, and how many there are.

    Raises:
        UserError: the file cannot be read or written, or a trace is too short.
    """
    found = _read(file)
    for name, config in scenarios.items():
        if name in found:
            continue
        found[name] = _tune(config, processes, lambda *counts, name=name: show(name, *counts))
        document = json.dumps(_RECORD.dump_python(found), indent=2, allow_nan=False) + "\n"
        with disk_errors(file, "the rivals' settings cannot be saved there", "Free space there"):
            write_file(file, document.encode())
    return {name: found[name] for name in scenarios}


def told(config: TrainingConfig, tuning: Tuning) -> TrainingConfig:
    """Return a config whose heuristics are told what tuning has found."""
    sections = {
        name: type(getattr(config.routers, name))(**tuned.settings)
        for name, tuned in tuning.items()
    }
    routers = config.routers.model_copy(update=sections)
    return config.model_copy(update={"routers": routers})


def _tune(config: TrainingConfig, processes: int, show: Callable[[int, int], None]) -> Tuning:
    jobs = [(config, name) for name in tunable(config)]
    tuning: Tuning = {}
    for index, one in map_unordered(_best, jobs, processes):
        _, name = jobs[index]
        tuning[name] = one
        show(len(tuning), len(jobs))
    return {name: tuning[name] for _, name in jobs}


def _best(job: tuple[TrainingConfig, str]) -> Tuned:
    """Return the settings of a heuristic with the lowest mean E2E."""
    config, name = job
    size = {"validation_seeds": WORKLOADS, "validation_requests": REQUESTS}
    drawn = config.model_copy(
        update={"checkpointing": config.checkpointing.model_copy(update=size)}
    )
    workloads = {seed: validation_table(drawn, seed) for seed in range(WORKLOADS)}
    tried = []
    for section in candidates(getattr(config.routers, name)):
        settings = section.model_dump()
        one = told(config, {name: Tuned(settings, 0.0, 0.0)})
        runs = runs_on_engine(one, engine_cluster(one), name, None, workloads)
        e2e = [counted_e2e(run, config.evaluation.warmup_fraction) for run in runs]
        tried.append((settings, float(np.concatenate(e2e).mean())))
    settings, best = min(tried, key=lambda one: one[1])
    return Tuned(settings, best, untuned_e2e_s=tried[0][1])


def candidates(section: Section) -> Iterator[Section]:
    """Yield what a heuristic may be told: what it is told now, and then settings spread evenly.

    Shares are taken from all of their range. Other settings have no natural upper end: their
    distance from the lower one is at most 16 times the default's, at least a sixteenth.
    """
    yield section
    fields = type(section).model_fields
    points = torch.quasirandom.SobolEngine(len(fields), scramble=True, seed=0).draw(TRIES - 1)
    for point in points.tolist():
        yield type(section)(
            **{
                name: _between(*limits(field), field.default, share)
                for (name, field), share in zip(fields.items(), point, strict=True)
            }
        )


def _between(low: float, high: float, default: float, share: float) -> float:
    """Return the setting a share of the way through its range; the lower end belongs to none."""
    if high == 1.0:
        return high - share * (high - low)
    return min(high, low + (default - low) * 2.0 ** (_OCTAVES * (2.0 * share - 1.0)))


def _read(file: Path) -> dict[str, Tuning]:
    try:
        found = _RECORD.validate_json(file.read_bytes(), strict=True)
        for tuning in found.values():
            RoutersSection.model_validate({n: tuned.settings for n, tuned in tuning.items()})
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{file}: the rivals' settings cannot be read ({_first_line(error)}); delete the file "
            "to look for them again"
        ) from None
    return found


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
