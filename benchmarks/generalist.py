"""One policy for many clusters, against policies that were taught on one of them each.

The generalist is taught as by ``vidur-ppo pretrain --config configs/generalist.json --also ...``,
on eight clusters of 4 and 16 replicas, and sees what each weighs. A specialist is taught on the
very cluster where both are judged, by as many rounds, and on twice as many decisions of it. Figures
are mean E2E and p99 TTFT of the generalist as multiples of the specialist's on the held-out
workloads: median of the seeds, and the worst one. Clusters of 3, 8 and 32 replicas it never saw.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from harness import run_benchmark_with_options

from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.metrics import LEARNED, CountedRun, Objectives, summarize_pooled
from vidur_ext.evaluation.runner import runs_on_engine
from vidur_ext.processes import map_unordered
from vidur_ext.routing.features import observation_schema
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.warmstart.cost_learning import Lessons, learn_from_costs
from vidur_ext.warmstart.taught_policy import TaughtPolicy
from vidur_ext.warmstart.teaching import new_demonstrations
from vidur_ext.workload.run_workloads import evaluation_table

_CONFIGS = Path(__file__).parents[1] / "configs"
_DEFAULT = "default"
TAUGHT_ON = (
    _DEFAULT,
    "mixed_devices",
    "code_heavy",
    "bursty",
    "overload",
    "shifting",
    "heavy_tail",
    "large",
)


def _sized(replicas: int, qps: float, weight: float) -> tuple[str, ...]:
    return (
        f"cluster.num_replicas={replicas}",
        f"workload.qps={qps}",
        f"lookahead.ttft_weight={weight}",
    )


def _mixed(replicas: int, qps: float) -> tuple[str, ...]:
    fast = (replicas + 1) // 2
    devices = ["h100"] * fast + ["a100"] * (replicas - fast)
    return (*_sized(replicas, qps, 3.0), f"cluster.devices={json.dumps(devices)}")


UNSEEN = {
    "3_replicas": (_DEFAULT, _sized(3, 16.5, 8.0)),
    "8_replicas": ("eight_replicas", ()),
    "32_replicas": (_DEFAULT, _sized(32, 184.0, 30.0)),
    "3_mixed": ("mixed_devices", _mixed(3, 29.0)),
    "8_mixed": ("mixed_devices", _mixed(8, 70.0)),
    "32_mixed": ("mixed_devices", _mixed(32, 280.0)),
}
"""Clusters of other sizes: the scenario that they are like, and what differs."""
JUDGED_ON = {**{name: (name, ()) for name in TAUGHT_ON}, **UNSEEN}

_QUICK = (
    "warmstart.rounds=1",
    "warmstart.labels_per_round=2000",
    "warmstart.steps_per_round=50",
    "evaluation.num_seeds=2",
    "evaluation.requests=128",
)


def _config(scenario: str, seed: int, quick: bool, changes: tuple[str, ...] = ()) -> TrainingConfig:
    path = _CONFIGS / "ppo_warmstart.json"
    if scenario != _DEFAULT:
        path = _CONFIGS / "scenarios" / f"{scenario}.json"
    return load_config(path, [f"training.seed={seed}", *changes, *(_QUICK if quick else ())])


def _taught(configs: list[TrainingConfig]) -> TaughtPolicy:
    clusters = [Lessons(one, new_demonstrations(one, lambda text: None)) for one in configs]
    schema = observation_schema(configs[0].observation)
    return learn_from_costs(clusters, schema, lambda report: None)


def _generalist(seed: int, quick: bool, names: tuple[str, ...]) -> TaughtPolicy:
    base = load_config(
        _CONFIGS / "generalist.json", [f"training.seed={seed}", *(_QUICK if quick else ())]
    )
    return _taught([base.on_cluster_of(_config(name, seed, quick)) for name in names])


def _judged(config: TrainingConfig, taught: TaughtPolicy) -> tuple[float, float]:
    """Return mean E2E and p99 TTFT [s] on the held-out workloads."""
    section = config.evaluation
    workloads = {seed: evaluation_table(config, seed) for seed in range(section.num_seeds)}
    runs = runs_on_engine(config, engine_cluster(config), LEARNED, taught.policy, workloads)
    objectives = Objectives(section.slo_ttft_s, section.slo_tbt_s)
    figures = summarize_pooled(
        [CountedRun.of(run, section.warmup_fraction, objectives) for run in runs]
    )
    e2e, ttft = figures["e2e_mean_s"], figures["ttft_p99_s"]
    assert e2e is not None
    assert ttft is not None
    return e2e, ttft


def _against_specialists(
    job: tuple[int, bool, tuple[str, ...], tuple[str, ...]],
) -> dict[str, tuple[float, float]]:
    seed, quick, taught_on, judged_on = job
    generalist = _generalist(seed, quick, taught_on)
    ratios = {}
    for name in judged_on:
        scenario, changes = JUDGED_ON[name]
        config = _config(scenario, seed, quick, changes)
        seeing = config.model_copy(
            update={"observation": config.observation.model_copy(update={"objective": True})}
        )
        one, other = _judged(seeing, generalist), _judged(config, _taught([config]))
        ratios[name] = (one[0] / other[0], one[1] / other[1])
        print(f"seed {seed}, {name}: mean E2E x{ratios[name][0]:.4f}", flush=True)
    return ratios


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=int, default=3, help="how often all are taught")
    parser.add_argument("--processes", type=int, default=2, help="seeds side by side")


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Return the figures of every cluster."""
    quick: bool = arguments.quick
    taught_on = TAUGHT_ON[:2] if quick else TAUGHT_ON
    judged_on = (_DEFAULT, "3_replicas") if quick else tuple(JUDGED_ON)
    jobs = [(seed, quick, taught_on, judged_on) for seed in range(1 if quick else arguments.seeds)]
    found = [one for _, one in map_unordered(_against_specialists, jobs, arguments.processes)]
    figures: dict[str, float] = {}
    for name in judged_on:
        for index, figure in enumerate(("e2e", "ttft_p99")):
            values = [one[name][index] for one in found]
            key = f"{name}.{figure}_vs_specialist"
            figures |= {f"{key}.median": statistics.median(values), f"{key}.worst": max(values)}
    return figures


if __name__ == "__main__":
    run_benchmark_with_options("One policy for many clusters", _add_options, measure)
