"""The comparison after a training: its policies and all heuristics on held-out workloads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison, check_engine
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.evaluation.report.terminal import print_comparison
from vidur_ext.evaluation.report.writer import ReportPaths, write_report
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.evaluation.runner import compare_on_vidur
from vidur_ext.run_folder import RunFolder
from vidur_ext.versions import package_versions
from vidur_ext.workload.run_workloads import describe_workload

_LOG = logging.getLogger("ppo")
TAUGHT_NAME = "warm_start"
EXTERNAL_NAME = "external_model"


def policies_of(folder: RunFolder) -> dict[str, Path]:
    """Return the policies of a run by the names they have in a comparison."""
    policies = {LEARNED: folder.policy}
    if folder.pretrained_actor.exists():
        taught = folder.warm_start.exists()
        policies[TAUGHT_NAME if taught else EXTERNAL_NAME] = folder.pretrained_actor
    return policies


def judge(
    config: TrainingConfig, policies: dict[str, Path], folder: RunFolder, quiet: bool
) -> ReportPaths:
    """Compare policies with the heuristics on held-out workloads; the report goes to ``folder``.

    Vidur judges. With the engine "compiled", the report says how far that engine agrees.
    """
    runs = compare_on_vidur(config, policies, _run_reporter())
    section = config.evaluation
    comparison = Comparison.from_runs(
        runs,
        expected_schedulers=[*policies, *section.schedulers],
        expected_seeds=list(range(section.num_seeds)),
        baseline=section.baseline,
        slo_ttft_s=section.slo_ttft_s,
        slo_tbt_s=section.slo_tbt_s,
        warmup_fraction=section.warmup_fraction,
        bootstrap_samples=section.bootstrap_samples,
        rng=generator(config.training.seed, Purpose.BOOTSTRAP),
    )
    engines = _on_both_engines(config, policies, runs)
    facts = {
        "Workload": describe_workload(config),
        "Cluster": f"{config.cluster.num_replicas} x {config.cluster.model_name} on "
        f"{config.cluster.device_counts()} (TP {config.cluster.tensor_parallel_size}), "
        f"{config.cluster.replica_scheduler}",
        "Decisions trained": str(config.training.total_requests),
        "Seed": str(config.training.seed),
        "Config digest": config.digest()[:16],
        **{f"Version of {name}": text for name, text in package_versions().items()},
    }
    paths = write_report(comparison, runs, folder.comparison, facts, engines)
    if not quiet:
        print_comparison(comparison, Console(), engines)
    _LOG.info("comparison in %s", paths.html)
    return paths


def _on_both_engines(
    config: TrainingConfig, policies: dict[str, Path], runs: list[RunResult]
) -> EngineComparison | None:
    """Return what the compiled engine makes of Vidur's ``runs``; None if it is not used."""
    if config.simulation.engine != "compiled":
        return None
    engines = check_engine(config, policies, runs)
    for one in engines.schedulers:
        if not one.agrees:
            _LOG.warning("Vidur and the compiled engine disagree on %s: see the report", one.name)
    return engines


def _run_reporter() -> Callable[[RunResult, int, int], None]:
    def report(run: RunResult, done: int, total: int) -> None:
        mean = float((run.completed_at - run.table.arrived_at).mean())
        _LOG.info(
            "compared %d/%d: %s on held-out workload %d, mean E2E %.2f s",
            done, total, run.scheduler, run.seed, mean,
        )  # fmt: skip

    return report
