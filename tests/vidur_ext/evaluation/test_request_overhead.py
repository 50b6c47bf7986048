"""What a request takes outside its batches is seen by its user, by routers and by planners."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vidur_ext.evaluation.runner import runs_on_engine, runs_on_vidur
from vidur_ext.execution_time.devices import device_named
from vidur_ext.routing.estimator import Rate
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import evaluation_table


@pytest.fixture
def devices(tmp_path):
    """An A100, and one whose server is slow to speak."""
    path = tmp_path / "slow_to_speak.json"
    values = device_named("a100").model_dump() | {"request_overhead_ms": 250.0}
    path.write_text(json.dumps(values), encoding="utf-8")
    return "a100", str(path)


def one_kind(make_config, device):
    return make_config(cluster={"device": device, "num_replicas": 2})


def test_every_token_is_seen_that_much_later_on_both_engines(make_config, devices) -> None:
    plain, slow = (one_kind(make_config, device) for device in devices)
    table = evaluation_table(plain, 0)
    before = runs_on_engine(plain, engine_cluster(plain), "round_robin", None, {0: table})[0]
    after = runs_on_engine(slow, engine_cluster(slow), "round_robin", None, {0: table})[0]
    by_vidur = runs_on_vidur(slow, "round_robin", None, {0: table})[0]
    for name in ("prefill_completed_at", "completed_at"):
        times = getattr(after, name)
        np.testing.assert_allclose(times, getattr(before, name) + 0.25, rtol=1e-12)
        np.testing.assert_allclose(times, getattr(by_vidur, name), rtol=1e-9)
    np.testing.assert_array_equal(after.scheduled_at, before.scheduled_at)


@pytest.mark.parametrize("router", ["min_predicted_latency", "lookahead"])
def test_a_router_that_predicts_avoids_it_where_replicas_differ(
    make_config, devices, router
) -> None:
    config = make_config(cluster={"devices": devices, "num_replicas": 2})
    cluster = engine_cluster(config)
    assert cluster.estimates.rates[:, Rate.REQUEST_S].tolist() == [0.0, 0.25]
    table = evaluation_table(config, 0)
    [run] = runs_on_engine(config, cluster, router, None, {0: table})
    assert np.mean(run.replica == 0) > 0.55
    np.testing.assert_array_equal(
        run.replica, runs_on_vidur(config, router, None, {0: table})[0].replica
    )
