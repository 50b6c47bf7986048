"""Planners as global schedulers: what they need, and that they go on and back like others."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from ppo_scheduler.seeding import Purpose, generator
from vidur_ext.config.sections import PLANNERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.engine.lookahead import ClusterTwin
from vidur_ext.evaluation.runner import runs_on_engine, runs_on_vidur
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation
from vidur_ext.workload.run_workloads import evaluation_table

SEED = 3


def config_of(**lookahead: float) -> TrainingConfig:
    return TrainingConfig.model_validate({"lookahead": lookahead, "training": {"seed": SEED}})


@pytest.fixture(scope="module")
def cluster():
    return engine_cluster(config_of())


@pytest.fixture(scope="module")
def table():
    return evaluation_table(config_of(), 0)


def at_once(requests: int, cluster, name: str, seed: int) -> list[int]:
    """Return where requests go that arrive at one instant at replicas that are all alike."""
    twin = ClusterTwin(cluster, name, 5.0, generator(seed, Purpose.SCHEDULER))
    return [twin.route(0.0, 100, 10) for _ in range(requests)]


@pytest.mark.parametrize("name", PLANNERS)
def test_ties_do_not_herd_to_one_replica(name, cluster):
    first = [at_once(1, cluster, name, seed)[0] for seed in range(40)]
    assert np.bincount(first, minlength=4).min() > 3


def test_simultaneous_requests_spread(cluster):
    assert sorted(at_once(4, cluster, "lookahead", SEED)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", PLANNERS)
def test_a_planner_that_went_back_decides_again_alike(name, cluster, table):
    """What it had learned of output lengths meanwhile is forgotten."""
    simulation = CompiledSimulation(cluster, table, name, seed=SEED, ttft_weight=5.0)
    fresh, digest = simulation.snapshot(), simulation.digest()
    simulation.run()
    routed, end = simulation.routing, simulation.digest()
    simulation.restore(fresh)
    assert simulation.digest() == digest
    simulation.run()
    np.testing.assert_array_equal(simulation.routing, routed)
    assert simulation.digest() == end


def test_a_twin_grows_and_goes_on(cluster, table):
    """It has room for 512 requests at first; these are four times as many."""
    simulation = CompiledSimulation(cluster, table, "lookahead", seed=SEED, ttft_weight=5.0)
    simulation.run()
    twin = ClusterTwin(cluster, "lookahead", 5.0, generator(SEED, Purpose.SCHEDULER))
    rows = zip(table.arrived_at, table.prefill_tokens, table.decode_tokens, strict=True)
    assert [twin.route(*row) for row in rows] == simulation.routing.tolist()


def test_a_twin_says_what_its_cluster_cannot_serve(cluster):
    twin = ClusterTwin(cluster, "lookahead", 5.0, generator(SEED, Purpose.SCHEDULER))
    twin.route(0.0, 9000, 10)
    twin.route(1000.0, 10, 10)
    with pytest.raises(UserError, match="max_tokens"):
        twin.route(1001.0, 10, 10)


def test_a_planner_without_its_weight_is_refused(cluster, table):
    with pytest.raises(UserError, match=r"ttft_weight.*config\.lookahead\.ttft_weight"):
        CompiledSimulation(cluster, table, "lookahead")


def test_given_choices_need_no_planning(cluster, table):
    replicas = np.arange(len(table)) % 4
    simulation = CompiledSimulation(cluster, table, "lookahead", choices=replicas)
    simulation.run()
    np.testing.assert_array_equal(simulation.routing, replicas)


@pytest.mark.shows("lookahead.ttft_weight")
def test_ttft_weight_trades_latency_for_first_tokens(cluster, table):
    light, heavy = (
        runs_on_engine(config_of(ttft_weight=weight), cluster, "lookahead", None, {0: table})[0]
        for weight in (0.0, 50.0)
    )
    assert heavy.prefill_completed_at.mean() < light.prefill_completed_at.mean() - 0.2
    assert light.completed_at.mean() < heavy.completed_at.mean() - 0.1


@pytest.mark.shows("lookahead.ttft_weight")
def test_ttft_weight_reaches_the_planner_on_vidur(cluster, table):
    config, few = config_of(ttft_weight=50.0), {0: table.slice(0, 200)}
    [vidur] = runs_on_vidur(config, "lookahead", None, few)
    [engine] = runs_on_engine(config, cluster, "lookahead", None, few)
    [usual] = runs_on_engine(config_of(), cluster, "lookahead", None, few)
    np.testing.assert_array_equal(vidur.replica, engine.replica)
    assert (engine.replica != usual.replica).any()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--replica_config_num_pipeline_stages", "2"), "num_pipeline_stages 1"),
        (("--replica_scheduler_config_type", "lightllm"), "sarathi, vllm, orca or vllm_v1"),
    ],
)
def test_vidurs_planner_refuses_what_it_cannot_simulate(flags, named, tmp_path):
    usual = cli_flags(TrainingConfig(), "lookahead", metrics_dir=str(tmp_path))
    config = parse_simulation_config([*usual, *flags])
    with pytest.raises(UserError, match=f"planners simulate their choices.*{named}"):
        VidurSimulation(config)
