"""What a policy looks at is what its decisions change with, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from vidur_ext.evaluation.importance import importance_of
from vidur_ext.evaluation.report.plots.features import feature_bars
from vidur_ext.evaluation.report.writer import write_report
from vidur_ext.routing.features import feature_families, observation_schema

FEATURES = Path(__file__).parents[3] / "docs" / "features.md"


@pytest.fixture
def config(make_config):
    return make_config(
        workload={"qps": 30.0}, evaluation={"num_seeds": 2, "requests": 96, "vidur_workloads": 0}
    )


@pytest.fixture
def policy(config) -> RoutingPolicy:
    """Return a policy that has learned nothing, but has seen states."""
    schema = observation_schema(config.observation)
    made = RoutingPolicy(schema, config.actor_critic_architecture, config.observation.clip)
    made.initialize(0)
    rng = np.random.default_rng(0)
    shapes = (64, 3, len(schema.replica)), (64, len(schema.context)), (64, len(schema.telemetry))
    made.collect(Observation(*(20 * rng.random(size=shape) for shape in shapes)))
    return made


def looking_only_at(policy: RoutingPolicy, *names: str) -> RoutingPolicy:
    """Let a policy see nothing but some features of replicas."""
    columns = [name not in names for name in policy.schema.replica]
    with torch.no_grad():
        policy.network.replica_input.weight[:, columns] = 0.0
        policy.network.context_input.weight[:] = 0.0
    return policy


def test_only_what_the_policy_looks_at_changes_its_decisions(config, policy) -> None:
    seeing = looking_only_at(policy, "outstanding", "outstanding_gap", "running")
    found = importance_of(config, "ppo", seeing)
    by_name = {(one.names, one.common): one for one in found.families}
    seen = {(("outstanding", "outstanding_gap"), False), (("running",), False)}
    assert {key for key, one in by_name.items() if one.changed > 0} == seen
    assert [one.changed for one in found.families] == sorted(
        (one.changed for one in found.families), reverse=True
    )
    for key, one in by_name.items():
        assert 0 <= one.changed <= 1
        assert (one.cost == 0) == (key not in seen)


def test_the_least_loaded_replica_is_not_found_in_the_load_of_another_moment(config) -> None:
    """A router that joins the shortest queue, by the queues of another moment, pays for it."""

    class Shortest:
        schema = observation_schema(config.observation)

        def greedy(self, observation: Observation) -> np.ndarray:
            column = self.schema.replica.index("outstanding")
            return observation.replicas[:, :, column].argmin(axis=1)

    first, *others = importance_of(config, "shortest", Shortest()).families
    assert first.names == ("outstanding", "outstanding_gap")
    assert first.changed > 0.3
    assert first.cost > 0
    assert all((one.changed, one.cost) == (0, 0) for one in others)


def test_equal_configs_give_equal_figures_and_seeds_differ(config, policy) -> None:
    found = importance_of(config, "ppo", policy)
    assert importance_of(config, "ppo", policy) == found
    other = config.model_copy(
        update={"training": config.training.model_copy(update={"seed": 1})}
    )  # fmt: skip
    assert importance_of(other, "ppo", policy) != found


def test_every_column_is_in_one_family_under_its_documented_name(config, policy) -> None:
    schema, found = policy.schema, importance_of(config, "ppo", policy)
    for common, names in ((False, schema.replica), (True, schema.context)):
        listed = [name for one in found.families if one.common is common for name in one.names]
        assert sorted(listed) == sorted(names)
    documented = set(re.findall(r"^\| `(\w+)`", FEATURES.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for one in found.families for name in one.names} <= documented


def test_a_quantity_and_its_gap_are_one_family_and_so_are_the_queue_slots() -> None:
    section = ObservationSection(queue_slots=3, history=True, output_length="oracle")
    schema, families = observation_schema(section), feature_families(section)
    named = [[schema.replica[column] for column in columns] for columns in families.replica]
    assert ["remaining_output_tokens", "remaining_output_gap"] in named
    assert ["queue0_prompt_tokens", "queue1_prompt_tokens", "queue2_prompt_tokens"] in named
    assert ["queue1_age_s", "queue2_age_s"] in named
    assert ["waiting"] in named
    assert all(len(columns) == 1 for columns in families.context)


def test_the_report_shows_the_top_ones_and_keeps_them_all(
    config, policy, tmp_path, small_comparison, small_runs
) -> None:
    found = importance_of(config, "ppo", policy)
    changed, cost = feature_bars(found).axes
    labels = [label.get_text() for label in changed.get_yticklabels()]
    assert len(labels) == 15 < len(found.families)
    assert [bar.get_width() for bar in changed.patches] == pytest.approx(
        [100 * one.changed for one in found.families[:15]]
    )
    assert [bar.get_width() for bar in cost.patches] == pytest.approx(
        [one.cost for one in found.families[:15]]
    )
    paths = write_report(small_comparison, small_runs, tmp_path, {}, importance=found)
    assert "features.png" in [path.name for path in paths.plots]
    told = json.loads(paths.json.read_text(encoding="utf-8"))["importance"]
    assert told == found.to_dict()
    assert len(told["families"]) == len(found.families)
