"""What the router sees of a running Vidur cluster: exact accounts, and no secrets."""

from __future__ import annotations

import numpy as np
import pytest

from vidur_ext.routing.features import observation_schema
from vidur_ext.workload.request_table import RequestTable


class Recorder:
    """Routes in turn and keeps all it sees."""

    def __init__(self, num_replicas: int = 3) -> None:
        self.num_replicas = num_replicas
        self.snapshots, self.intervals, self.observations = [], [], []
        self.rewards, self.dones = [], []

    def observe(self, snapshot, interval, request) -> None:
        self.snapshots.append(snapshot)
        self.intervals.append(interval)

    def decide(self, observation, reward, done) -> np.ndarray:
        self.observations.append(observation)
        self.rewards.append(float(reward[0]))
        self.dones.append(bool(done[0]))
        return np.array([len(self.observations) % self.num_replicas])


@pytest.fixture
def simulate(make_config, build_simulation, make_requests):
    def run(table=None, **groups):
        table = table if table is not None else make_requests(qps=40.0)
        config = make_config(**groups)
        simulation = build_simulation(config, "ppo_modular", table)
        recorder = Recorder()
        simulation.scheduler.attach(recorder, config)
        simulation.run()
        end = simulation.scheduler.finish(simulation.now)
        return recorder, simulation, end

    return run


def test_request_seconds_add_up_to_all_latencies(simulate):
    recorder, simulation, _ = simulate()
    total = sum(interval.request_seconds for interval in recorder.intervals)
    assert total == pytest.approx(
        (simulation.times("completed_at") - simulation.times("arrived_at")).sum(), rel=1e-9
    )


def test_unanswered_seconds_add_up_to_all_times_to_first_token(simulate):
    recorder, simulation, _ = simulate()
    total = sum(interval.unanswered_seconds for interval in recorder.intervals)
    assert total == pytest.approx(
        (simulation.times("prefill_completed_at") - simulation.times("arrived_at")).sum(), rel=1e-9
    )


def test_accounts_hold_under_preemption(simulate):
    growing = RequestTable(np.arange(60) / 15.0, np.full(60, 100), np.full(60, 250))
    recorder, simulation, _ = simulate(growing, cluster={"num_blocks": 130, "num_replicas": 3})
    assert max(s.row("restarts").max() for s in recorder.snapshots) > 0
    total = sum(interval.request_seconds for interval in recorder.intervals)
    assert total == pytest.approx(
        (simulation.times("completed_at") - simulation.times("arrived_at")).sum(), rel=1e-9
    )


def test_every_completion_is_seen_once(simulate):
    recorder, simulation, _ = simulate()
    seen = sorted(c.e2e_s for interval in recorder.intervals for c in interval.completions)
    np.testing.assert_allclose(
        seen, np.sort(simulation.times("completed_at") - simulation.times("arrived_at"))
    )


def test_no_request_is_lost_or_made_up(simulate):
    recorder, simulation, _ = simulate()
    arrived = np.searchsorted(
        simulation.times("arrived_at"), [s.now for s in recorder.snapshots[:-1]]
    )
    for snapshot, before in zip(recorder.snapshots[:-1], arrived, strict=True):
        done = (simulation.times("completed_at") <= snapshot.now).sum()
        assert snapshot.outstanding.sum() == before - done
    assert recorder.snapshots[-1].outstanding.sum() == 0


def test_rewards_of_an_episode_sum_to_minus_all_latencies(simulate):
    recorder, simulation, end = simulate(reward_config={"mode": "latency"})
    total = sum(recorder.rewards) + end.reward
    assert total == pytest.approx(
        -(simulation.times("completed_at") - simulation.times("arrived_at")).sum(), rel=1e-9
    )


def test_by_default_they_sum_to_minus_all_latencies_and_weighted_times_to_first_token(simulate):
    recorder, simulation, end = simulate(lookahead={"ttft_weight": 3.0})
    total = sum(recorder.rewards) + end.reward
    arrived, answered, completed = (
        simulation.times(f"{name}_at") for name in ("arrived", "prefill_completed", "completed")
    )
    expected = -(completed - arrived + 3.0 * (answered - arrived)).sum()
    assert total == pytest.approx(expected, rel=1e-9)


@pytest.mark.shows("observation.history")
def test_columns_match_the_schema(simulate, make_config):
    for section in ({}, {"history": False}, {"queue_slots": 0}, {"output_length": "oracle"}):
        recorder, _, _ = simulate(observation=section)
        schema = observation_schema(make_config(observation=section).observation)
        seen = recorder.observations[-1]
        assert seen.replicas.shape == (1, 3, len(schema.replica))
        assert seen.context.shape == (1, len(schema.context))
        assert seen.telemetry.shape == (1, len(schema.telemetry))


def longer_outputs(table: RequestTable) -> RequestTable:
    return RequestTable(table.arrived_at, table.prefill_tokens, table.decode_tokens + 500)


def before_any_completion(recorder: Recorder) -> int:
    return next(i for i, interval in enumerate(recorder.intervals) if interval.completions)


def test_output_lengths_are_hidden(simulate, make_requests):
    table = longer_outputs(make_requests(qps=40.0))
    short, _, _ = simulate(table)
    long, _, _ = simulate(longer_outputs(table))
    count = min(before_any_completion(short), before_any_completion(long))
    assert count > 20
    for first, second in zip(short.observations[:count], long.observations[:count], strict=True):
        np.testing.assert_array_equal(first.replicas, second.replicas)
        np.testing.assert_array_equal(first.context, second.context)


@pytest.mark.shows("observation.output_length")
def test_an_oracle_sees_output_lengths(simulate, make_requests):
    table = longer_outputs(make_requests(qps=40.0))
    oracle = {"output_length": "oracle"}
    short, _, _ = simulate(table, observation=oracle)
    long, _, _ = simulate(longer_outputs(table), observation=oracle)
    assert not np.array_equal(short.observations[5].replicas, long.observations[5].replicas)
    assert not np.array_equal(short.observations[5].context, long.observations[5].context)


@pytest.mark.shows("observation.queue_slots")
def test_queue_slots_describe_waiting_requests_in_order(simulate, make_config, make_requests):
    section = {"queue_slots": 3, "history": False}
    crowded = {"batch_size_cap": 1}
    recorder, _, _ = simulate(make_requests(qps=100.0), observation=section, cluster=crowded)
    names = observation_schema(make_config(observation=section).observation).replica
    ages = [names.index(name) for name in ("oldest_wait_s", "queue1_age_s", "queue2_age_s")]
    last = recorder.observations[-1].replicas[0][:, ages]
    assert (last > 0).all()
    assert (np.diff(last, axis=1) <= 0).all()


@pytest.mark.shows("observation.history_alpha")
def test_history_alpha_changes_the_history_only(simulate, make_config):
    slow, _, _ = simulate()
    quick, _, _ = simulate(observation={"history_alpha": 0.9})
    after = (slow.observations[-1].replicas[0], quick.observations[-1].replicas[0])
    names = observation_schema(make_config().observation).replica
    differing = {
        name for i, name in enumerate(names) if not np.array_equal(after[0][:, i], after[1][:, i])
    }
    assert differing
    assert all(name.startswith("outstanding_") for name in differing)


def test_simultaneous_requests_see_each_other(simulate):
    table = RequestTable(np.array([1.0, 1.0, 1.0]), np.full(3, 100), np.full(3, 5))
    recorder, _, _ = simulate(table)
    assert [s.outstanding.sum() for s in recorder.snapshots[:3]] == [0, 1, 2]


def test_equal_simulations_have_equal_digests(make_config, build_simulation, make_requests):
    digests = []
    for seed in (0, 0, 1):
        config = make_config()
        simulation = build_simulation(config, "ppo_modular", make_requests(seed=seed))
        simulation.scheduler.attach(Recorder(), config)
        simulation.run()
        digests.append(simulation.scheduler.digest())
    assert digests[0] == digests[1] != digests[2]
