"""The comparison after a training: its policies and all heuristics on held-out workloads."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from ppo_scheduler.errors import UserError, printable
from ppo_scheduler.monitoring.run_log import FILE_ONLY
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.decision_cost import decision_cost_us
from vidur_ext.evaluation.engines import EngineComparison, check_engine
from vidur_ext.evaluation.importance import importance_of
from vidur_ext.evaluation.load_sweep import LoadSweep, sweep_loads
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.evaluation.progress import about_seconds, shown_progress
from vidur_ext.evaluation.report.head import Head
from vidur_ext.evaluation.report.plots.learning import Learning, Rival, Validated
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.report.writer import ReportPaths, write_report
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.evaluation.runner import compared_runs, read_policy
from vidur_ext.run_folder import RunFolder
from vidur_ext.versions import package_versions
from vidur_ext.workload.run_workloads import describe_workload
from vidur_ext.workload.trained_rows import doubt_about_held_out

T = TypeVar("T")

_LOG = logging.getLogger("ppo")
_LOG_WIDTH = 120
TAUGHT_NAME = "warm_start"
EXTERNAL_NAME = "external_model"
_MOST_DRAWN = 1e15
"""More than any training takes; far larger numbers no axis can show."""


def policies_of(folder: RunFolder) -> dict[str, Path]:
    """Return the policies of a run by the names they have in a comparison."""
    policies = {LEARNED: folder.policy}
    if folder.pretrained_actor.exists():
        taught = folder.warm_start.exists()
        policies[TAUGHT_NAME if taught else EXTERNAL_NAME] = folder.pretrained_actor
    return policies


def origin_of(folder: RunFolder) -> dict[str, str]:
    """Return in words how the policies of a run came about, as far as its files say it.

    Raises:
        UserError: a file is damaged.
    """
    said = {"Warm start": (folder.warm_start, _taught), "Policy": (folder.validation, _chosen)}
    origin = {}
    for name, (file, describe) in said.items():
        if file.exists():
            origin[name] = printable(_read(file, describe))
    return origin


def learning_of(folder: RunFolder) -> Learning:
    """Return how a run's training was validated; nothing where no file says so.

    Raises:
        UserError: the file is damaged.
    """
    if not folder.validation.exists():
        return Learning()
    return _read(folder.validation, _learning)


def _learning(document: dict[str, Any]) -> Learning:
    chosen = document["chosen"]["global_step"]
    return Learning(
        validated=tuple(
            Validated(
                global_step=int(_drawable(one["global_step"])),
                e2e_s=_drawable(one["e2e_s"]),
                ttft_s=_drawable(one["ttft_s"]),
                chosen=one["global_step"] == chosen,
            )
            for one in document["scores"]
        ),
        rivals=tuple(
            Rival(printable(one["name"]), _drawable(one["e2e_s"]), _drawable(one["ttft_s"]))
            for one in document.get("rivals", [])  # older trainings did not measure them
        ),
    )


def _drawable(value: float) -> float:
    if not 0 <= value < _MOST_DRAWN:
        raise ValueError(f"{value} is no time and no number of decisions")
    return float(value)


def _read(file: Path, describe: Callable[[dict[str, Any]], T]) -> T:
    try:
        return describe(json.loads(file.read_bytes()))
    except Exception as error:  # whatever stands in it
        raise UserError(
            f"{file}: is damaged ({type(error).__name__}: {error}). Restore it, or delete it: the "
            "report will not say how the policy came about"
        ) from error


def held_out_of(folder: RunFolder, config: TrainingConfig) -> dict[str, str]:
    """Return what is doubtful about the requests held out for a run; nothing if nothing is."""
    record = folder.record
    doubt = None if record is None else doubt_about_held_out(config.workload, record.trained)
    if doubt is None:
        return {}
    _LOG.warning("%s: %s", config.workload.trace_file, doubt)
    return {"Held out": doubt}


def _taught(document: dict[str, Any]) -> str:
    steps = document["history"]
    last = steps[document["best"]]
    if document["method"] == "imitation":
        agreement = ", ".join(f"{share:.1%} as {name}" for name, share in last["accuracy"].items())
        return f"imitation, epoch {document['best']} of {len(steps)}: held-out {agreement}"
    regrets = ", ".join(f"{step['regret']:.3f}" for step in steps)
    return (
        f"learned from costs; held-out regret after each round {regrets} request-seconds "
        f"(at random {last['regret_at_random']:.3f})"
    )


def _chosen(document: dict[str, Any]) -> str:
    chosen, weight = document["chosen"], document["ttft_weight"]
    return (
        f"that of {chosen['name']}: of {len(document['scores'])} validated the one with the "
        f"smallest mean E2E + {weight:g} x mean TTFT, {chosen['objective_s']:.3f} s"
    )


def judge(
    config: TrainingConfig,
    policies: dict[str, Path],
    folder: RunFolder,
    quiet: bool,
    origin: Mapping[str, str],
    loads: Sequence[float] = (),
) -> ReportPaths:
    """Compare policies with the heuristics on held-out workloads; the report goes to ``folder``.

    The engine of the config judges. If that is "compiled", Vidur repeats the first workloads, and
    the report says how far it agrees.

    Args:
        policies: file of each policy, by its name in the comparison; the report is about the first.
        origin: facts on where the policies come from; see ``origin_of``.
        loads: shares of saturation at which they are compared too; see ``sweep_loads``.

    Raises:
        UserError: the record of the run's validations is damaged, or the report cannot be written.
    """
    section, engine = config.evaluation, config.simulation.engine
    learned = next(iter(policies))
    learning = learning_of(RunFolder(policies[learned].resolve().parent))
    bar = config.monitoring.progress_bar and not quiet
    runs = _compared(config, policies, engine, section.num_seeds, "compared", bar=bar)
    engines = _check_on_vidur(config, policies, runs, bar=bar)
    comparison = Comparison.from_runs(
        runs,
        expected_schedulers=[*policies, *section.schedulers],
        expected_seeds=list(range(section.num_seeds)),
        baseline=section.baseline,
        under_test=learned,
        devices=config.cluster.replica_devices(),
        engine=engine,
        slo_ttft_s=section.slo_ttft_s,
        slo_tbt_s=section.slo_tbt_s,
        warmup_fraction=section.warmup_fraction,
        bootstrap_samples=section.bootstrap_samples,
        rng=generator(config.training.seed, Purpose.BOOTSTRAP),
    )
    facts = {
        "Workload": describe_workload(config),
        "Cluster": f"{config.cluster.num_replicas} x {config.cluster.model_name} on "
        f"{config.cluster.device_counts()} (TP {config.cluster.tensor_parallel_size}), "
        f"{config.cluster.replica_scheduler}",
        "Decisions trained": str(config.training.total_requests),
        "Seed": str(config.training.seed),
        **origin,
        "Config digest": config.digest()[:16],
        **{f"Version of {name}": text for name, text in package_versions().items()},
    }
    policy = read_policy(config, policies[learned])
    cost = decision_cost_us(policy, config.cluster.num_replicas)
    importance = importance_of(config, learned, policy) if engine == "compiled" else None
    head = Head.of(config, policies, folder, datetime.now().astimezone(), cost)
    sweep = _sweep(config, policies, loads)
    paths = write_report(
        comparison, runs, folder.comparison, facts, engines, head, learning, importance, sweep
    )
    _LOG.info("comparison in %s", paths.html)
    table = io.StringIO()
    print_comparison(comparison, Console(file=table, width=_LOG_WIDTH), engines, sweep)
    _LOG.info("the comparison:\n%s", table.getvalue(), extra=FILE_ONLY)
    if not quiet:
        print_comparison(comparison, Console(), engines, sweep)
    return paths


def _compared(
    config: TrainingConfig,
    policies: dict[str, Path],
    engine: str,
    num_workloads: int,
    done_what: str,
    *,
    bar: bool,
) -> list[RunResult]:
    """Run all schedulers on the first held-out workloads, saying how long that takes."""
    section, names = config.evaluation, [*policies, *config.evaluation.schedulers]
    seconds = about_seconds(
        names, engine, num_workloads * section.requests, config.parallel_training.num_workers
    )
    _LOG.info(
        "comparing %d schedulers on %d held-out %s, engine %s, about %.0f s",
        len(names), num_workloads, "workload" if num_workloads == 1 else "workloads", engine,
        seconds,
    )  # fmt: skip
    with shown_progress(done_what, len(names), section.warmup_fraction, bar=bar) as report:
        return compared_runs(config, policies, engine, range(num_workloads), report)


def _check_on_vidur(
    config: TrainingConfig, policies: dict[str, Path], runs: list[RunResult], *, bar: bool
) -> EngineComparison | None:
    """Let Vidur repeat some of the compiled engine's ``runs``; None if it has none to repeat."""
    section = config.evaluation
    if config.simulation.engine == "vidur" or section.vidur_workloads == 0:
        return None
    _LOG.info(
        "as the check, Vidur repeats %d of %d workloads",
        section.vidur_workloads, section.num_seeds,
    )  # fmt: skip
    repeated = _compared(config, policies, "vidur", section.vidur_workloads, "repeated", bar=bar)
    engines = check_engine(config, policies, repeated, runs)
    for one in engines.schedulers:
        if not one.agrees:
            _LOG.warning("Vidur and the compiled engine disagree on %s: see the report", one.name)
    return engines


def _sweep(
    config: TrainingConfig, policies: Mapping[str, Path], loads: Sequence[float]
) -> LoadSweep | None:
    """Compare at other loads, if there are any."""
    if not loads:
        return None
    _LOG.info("comparing at %s of saturation", ", ".join(f"{100 * load:g} %" for load in loads))
    return sweep_loads(
        config,
        policies,
        loads,
        lambda name, done, total: _LOG.info("over load %d/%d: %s", done, total, name),
    )
