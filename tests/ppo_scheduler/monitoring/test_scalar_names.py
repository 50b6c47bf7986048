"""Every scalar has one fixed name that the learner keeps to and the documentation explains."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ppo_scheduler.monitoring.scalars import scalar_names
from ppo_scheduler.monitoring.tail_latency import TailLatencyTracker

_METRICS_PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
_GOLDEN = """
Training/PolicyLoss Training/ValueLoss Training/Entropy Training/ApproxKL Training/ClipFraction
Training/ExplainedVariance Training/GradientNorm Training/LearningRate Training/ReferenceKL
Training/ReferenceKLCoef Training/EntropyCoef Training/ActionBalance Training/MinibatchSize
Training/EpochsDone Training/SkippedSteps Training/RewardScale
Rollout/RewardMean Rollout/RewardStd Rollout/RewardMin Rollout/RewardMax Rollout/ValueMean
Rollout/ReturnMean Rollout/AdvantageStd Rollout/Regret
Actions/Replica_0 Actions/Replica_1
Reward/latency Reward/imbalance
tail_latency/latency_p50 tail_latency/latency_p90 tail_latency/latency_p95 tail_latency/latency_p99
tail_latency/ttft_p50 tail_latency/ttft_p90 tail_latency/ttft_p99
Control/Temperature Control/TemperaturePulses Control/CollapseInterventions
curriculum/Stage curriculum/QpsScale curriculum/LatencyThresholdScale curriculum/PenaltyScale
Validation/Objective Validation/BestHeuristic Validation/MeanLatency Validation/MeanTTFT
Speed/DecisionsPerSecond Speed/UpdateSeconds Speed/CheckpointSeconds
"""
_OF_A_CRITIC = {
    "Training/ValueLoss",
    "Training/ExplainedVariance",
    "Rollout/ValueMean",
    "Rollout/ReturnMean",
}
_FROM_THE_SIMULATION = ("curriculum/", "tail_latency/", "Validation/", "Speed/CheckpointSeconds")


def test_names_are_fixed_in_text_and_order():
    assert " ".join(scalar_names(2, ("latency", "imbalance"))) == _GOLDEN.replace("\n", " ").strip()


@pytest.mark.parametrize(
    ("advantage", "missing"),
    [("gae", {"Rollout/Regret"}), ("counterfactual", _OF_A_CRITIC)],
)
def test_the_learner_records_every_name_that_is_its_own_and_no_other(
    make_learner, make_task, toy_schema, sink, advantage, missing
):
    learner, task = (
        make_learner(ppo_config={"advantage": advantage, "minibatch_size": 16}),
        make_task(),
    )
    for _ in range(300):
        task.step(learner)
    recorded = set().union(*(scalars for _, scalars in sink.records))
    expected = scalar_names(learner.num_replicas, toy_schema.reward_components)
    own = {name for name in expected if not name.startswith(_FROM_THE_SIMULATION)}
    assert recorded == own - missing


def test_the_tracker_records_every_tail_latency():
    tracker = TailLatencyTracker(10, 1.0)
    tracker.add(np.array([[1.0, 0.5]]))
    names = [name for name in scalar_names(1, ()) if name.startswith("tail_latency/")]
    assert list(tracker.scalars()) == names


def test_the_documentation_lists_exactly_these_names():
    rows = re.findall(r"^\| `(\w+/[\w<>]+)` \|", _METRICS_PAGE.read_text(encoding="utf-8"), re.M)
    expected = [name for name in scalar_names(1, ()) if not name.startswith("Actions/")]
    assert [row for row in rows if "<" not in row] == expected
    assert [row for row in rows if "<" in row] == ["Actions/Replica_<i>", "Reward/<component>"]
