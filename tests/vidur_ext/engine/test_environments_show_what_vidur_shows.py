"""Observation and reward of the compiled environments, number by number, against Vidur's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.errors import UserError
from vidur_ext.config.sections import REWARD_MODES, RewardSection
from vidur_ext.config.training_config import RouterConfig
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.vidur.engine_inputs import cluster_of
from vidur_ext.vidur.simulation import VidurSimulation

USUAL = StageScales(0)
DELAYS = st.sampled_from([0.0, 1e-3, 0.125, 2.0, 60.0])
"""From none to longer than what is simulated [s]."""


class Recorder:
    """Routes at random and keeps all that Vidur's scheduler hands over."""

    def __init__(self, replicas: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._replicas = replicas
        self.actions, self.observations, self.rewards = [], [], []

    def observe(self, snapshot, interval, request) -> None:
        pass

    def decide(self, observation, reward, done) -> np.ndarray:
        self.observations.append(observation)
        self.rewards.append(float(reward[0]))
        self.actions.append(int(self._rng.integers(self._replicas)))
        return np.array([self.actions[-1]])


def environments(config, num_envs):
    return RoutingEnvironments(cluster_of(config), RouterConfig(), num_envs)


def seen_in_vidur(simulation, replicas, seed, router, scales):
    recorder = Recorder(replicas, seed)
    simulation.scheduler.attach(recorder, router, scales=scales)
    simulation.run()
    return recorder, simulation.scheduler.finish(simulation.now)


def assert_equal(seen, expected):
    np.testing.assert_allclose(seen, expected, rtol=1e-9, atol=1e-9)


def compare(case, vidur_config, router, num_envs=1, scales=USUAL):
    """Run the case and others with its cluster, in Vidur one by one, compiled side by side."""
    config = vidur_config(case, scheduler="ppo_modular")
    count = max(1, len(case.table) // num_envs)
    tables = [case.table.slice(i * count, (i + 1) * count) for i in range(num_envs)]
    replicas = case.cluster["num_replicas"]
    recorded, times = [], []
    for seed, table in enumerate(tables):
        simulation = VidurSimulation(config, table)
        recorded.append(seen_in_vidur(simulation, replicas, seed, router, scales))
        requests = simulation.requests
        times.append([(r.scheduled_at, r.prefill_completed_at, r.completed_at) for r in requests])
    envs = RoutingEnvironments(cluster_of(config), router, num_envs)
    envs.begin(tables, scales)
    for step in range(count):
        assert envs.waiting
        for env, (recorder, _) in enumerate(recorded):
            expected = recorder.observations[step]
            assert_equal(envs.observation.replicas[env], expected.replicas[0])
            assert_equal(envs.observation.context[env], expected.context[0])
            assert_equal(envs.observation.telemetry[env], expected.telemetry[0])
            assert_equal(envs.reward[env], recorder.rewards[step])
        envs.step(np.array([recorder.actions[step] for recorder, _ in recorded]))
    assert not envs.waiting
    assert_equal(envs.reward, [end.reward[0] for _, end in recorded])
    assert_equal(envs.components, [end.components[0] for _, end in recorded])
    np.testing.assert_array_equal(envs.routing, [recorder.actions for recorder, _ in recorded])
    seen = (envs.scheduled_at, envs.prefill_completed_at, envs.completed_at)
    np.testing.assert_allclose(np.stack(seen, axis=2), times, rtol=1e-9)


def draw_seen_case(data, draw_case):
    case = draw_case(data).seen_late(data.draw(DELAYS, "signal delay"))
    delays = st.sampled_from([case.signal_delay_s]) | DELAYS
    return case.told_late(data.draw(delays, "KV event delay"))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_number_is_equal(data, draw_case, vidur_config):
    case = draw_seen_case(data, draw_case)
    observation = ObservationSection(
        **case.knowledge,
        output_length=data.draw(st.sampled_from(["hidden", "oracle"])),
        queue_slots=data.draw(st.sampled_from([0, 2, 5])),
        history=data.draw(st.booleans()),
        objective=data.draw(st.booleans()),
    )
    reward = RewardSection(mode=data.draw(st.sampled_from(REWARD_MODES)))
    num_envs = data.draw(st.integers(1, min(4, len(case.table))))
    event(f"{num_envs} environments")
    router = RouterConfig(observation=observation, reward_config=reward)
    compare(case, vidur_config, router, num_envs)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_number_is_equal_in_many_clusters(data, draw_case, vidur_config):
    case = draw_seen_case(data, draw_case)
    reward = RewardSection(mode=data.draw(st.sampled_from(REWARD_MODES)))
    observation = ObservationSection(output_length="oracle", queue_slots=4, **case.knowledge)
    compare(case, vidur_config, RouterConfig(observation=observation, reward_config=reward))


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_stages_scale_thresholds_and_penalties_alike(data, draw_case, vidur_config):
    scales = StageScales(0, latency_threshold_scale=0.001, penalty_scale=3.0)
    reward = RewardSection(mode="hybrid")
    compare(draw_case(data), vidur_config, RouterConfig(reward_config=reward), scales=scales)


def test_what_was_shown_stays_when_the_environments_go_on(make_case, vidur_config, small_table):
    case = make_case({"num_replicas": 2}, "ppo_modular", 300, 0, small_table)
    envs = RoutingEnvironments(cluster_of(vidur_config(case)), RouterConfig(), 1)
    envs.begin([small_table])
    first = envs.observation
    copy = replace(first, replicas=first.replicas.copy(), telemetry=first.telemetry.copy())
    envs.step(np.array([1]))
    np.testing.assert_array_equal(first.replicas, copy.replicas)
    np.testing.assert_array_equal(first.telemetry, copy.telemetry)


def test_routing_and_times_are_those_so_far_and_copies(make_case, vidur_config, small_table):
    case = make_case({"num_replicas": 2}, "ppo_modular", 300, 0, small_table)
    envs = RoutingEnvironments(cluster_of(vidur_config(case)), RouterConfig(), 2)
    envs.begin([small_table, small_table])
    envs.step(np.array([1, 0]))
    np.testing.assert_array_equal(envs.routing, [[1] + [-1] * 7, [0] + [-1] * 7])
    assert not envs.completed_at.any()
    for name in ("routing", "scheduled_at", "prefill_completed_at", "completed_at"):
        getattr(envs, name)[:] = 7
        assert not (getattr(envs, name) == 7).any()


def test_equal_actions_leave_equal_traces(make_case, vidur_config, small_table):
    case = make_case({"num_replicas": 2}, "ppo_modular", 300, 0, small_table)
    traces = []
    for actions in ([0, 1, 1], [0, 1, 1], [0, 0, 1]):
        envs = RoutingEnvironments(cluster_of(vidur_config(case)), RouterConfig(), 1)
        envs.begin([small_table])
        for action in actions:
            envs.step(np.array([action]))
        traces.append(envs.trace())
    assert traces[0] == traces[1] != traces[2]


def test_tables_of_different_lengths_are_refused(make_case, vidur_config, small_table):
    case = make_case({"num_replicas": 2}, "ppo_modular", 300, 0, small_table)
    envs = RoutingEnvironments(cluster_of(vidur_config(case)), RouterConfig(), 2)
    with pytest.raises(UserError, match="of one length"):
        envs.begin([small_table, small_table.slice(0, 3)])


def test_a_request_that_cannot_be_served_is_an_error(make_case, vidur_config, small_table):
    cluster = {"num_replicas": 2, "num_blocks": 2, "watermark_blocks_fraction": 0.9}
    case = make_case(cluster, "ppo_modular", 300, 0, small_table)
    envs = RoutingEnvironments(cluster_of(vidur_config(case)), RouterConfig(), 1)
    envs.begin([small_table])

    def go_on() -> None:
        while envs.waiting:
            envs.step(np.array([0]))

    with pytest.raises(UserError, match="can never be served"):
        go_on()
