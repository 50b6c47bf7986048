"""A cluster may have a device per replica, on either engine and under every global scheduler."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.routing.estimator import Rate, predict
from vidur_ext.routing.view import Arriving, Quantity, SeenReplica, SeenRequest
from vidur_ext.vidur.engine_inputs import build_replicas, cluster_of
from vidur_ext.vidur.estimates import estimates_of
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation

MIXED = ("h100", "h100", "a40", "a100")


@pytest.fixture
def parsed(tmp_path):
    """Return Vidur's config of a cluster under a scheduler; ``flags`` come last."""

    def parse(scheduler="round_robin", flags=(), max_tokens=4096, **cluster):
        tree = {"cluster": cluster, "workload": {"max_tokens": max_tokens}}
        config = TrainingConfig.model_validate(tree)
        plain = cli_flags(config, scheduler, metrics_dir=str(tmp_path / "vidur"))
        return parse_simulation_config([*plain, *flags])

    return parse


def replica_schedulers(config, table):
    return list(VidurSimulation(config, table).scheduler._replica_schedulers.values())


@pytest.mark.parametrize("scheduler", ["random", "round_robin", "lor", "least_outstanding"])
def test_each_replica_has_its_own_device_memory_and_node(parsed, make_requests, scheduler):
    config = parsed(scheduler, devices=MIXED, network_device="a100_pairwise_nvlink")
    schedulers = replica_schedulers(config, make_requests(5))
    replicas = [one._replica_config for one in schedulers]
    assert tuple(one.device for one in replicas) == MIXED
    assert [one.network_device for one in replicas] == [
        "h100_dgx", "h100_dgx", "a40_pairwise_nvlink", "a100_pairwise_nvlink",
    ]  # fmt: skip
    blocks = [one._cache_config.num_blocks for one in schedulers]
    assert blocks[2] < blocks[0] == blocks[1] == blocks[3]
    assert cluster_of(config).settings.num_blocks.tolist() == blocks


def test_given_blocks_are_those_of_every_replica(parsed, make_requests):
    schedulers = replica_schedulers(parsed(devices=MIXED, num_blocks=777), make_requests(5))
    assert [one._cache_config.num_blocks for one in schedulers] == [777] * 4


@pytest.mark.parametrize("scheduler", ["round_robin", "lor", "min_predicted_latency"])
def test_equal_devices_are_one_device(parsed, make_requests, scheduler):
    table = make_requests(40)
    named, plain = (
        CompiledSimulation(cluster_of(parsed(scheduler, devices=devices)), table, scheduler)
        for devices in (("a100",) * 4, None)
    )
    for simulation in (named, plain):
        simulation.run()
    np.testing.assert_array_equal(named.completed_at, plain.completed_at)


def test_the_estimator_sees_which_replica_is_faster(parsed):
    replicas = build_replicas(parsed(devices=MIXED))
    estimates = estimates_of([replicas.schedulers[kind] for kind in replicas.kind])
    idle = SeenReplica(*[0.0] * len(Quantity))
    request = SeenRequest(*[0.0] * len(Arriving))._replace(
        prompt_tokens=500.0, expected_output_tokens=128.0
    )
    predicted = [
        predict.py_func(estimates, replica, idle, request, 0.0, 0.0) for replica in range(4)
    ]
    ttft = [one.ttft_s for one in predicted]
    latency = [one.latency_s for one in predicted]
    assert ttft[0] == ttft[1] < ttft[3] < ttft[2]
    assert latency[0] == latency[1] < latency[3] < latency[2]


@pytest.mark.parametrize("kind", ["sarathi", "vllm", "orca"])
@pytest.mark.parametrize("max_tokens", [33, 300, 2048])
def test_the_estimator_takes_what_fits_short_tables(parsed, kind, max_tokens):
    config = parsed(replica_scheduler=kind, max_tokens=max_tokens, max_tokens_in_batch=4096)
    estimates = estimates_of(build_replicas(config).schedulers)
    assert 0 < estimates.prefill_tokens <= max_tokens
    assert (estimates.rates[:, Rate.CHUNK_S] > 0).all()
    assert np.isfinite(estimates.rates[:, Rate.SLOPE]).all()


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("a100,a100", ("2 devices for 4 replicas", "--cluster_config_num_replicas")),
        ("a100,a100,a100,v100", ("'v100'", "h100")),
    ],
)
def test_wrong_devices_are_refused(parsed, devices, words):
    with pytest.raises(UserError) as error:
        parsed(flags=("--cluster_config_devices", devices))
    assert all(word in str(error.value) for word in words)


def test_a_device_that_is_too_small_is_named(parsed):
    with pytest.raises(UserError, match=r"on a40 .* cluster\.devices\[2\]"):
        parsed(devices=MIXED, model_name="codellama/CodeLlama-34b-Instruct-hf")


def test_utilization_of_several_devices_is_refused(parsed):
    with pytest.raises(UserError, match="store_utilization_metrics"):
        parsed(devices=MIXED, flags=("--metrics_config_write_metrics",))


def test_devices_are_settings_and_change_the_digest():
    mixed, equal = (
        TrainingConfig.model_validate({"cluster": {"devices": devices}})
        for devices in (MIXED, None)
    )
    assert mixed.settings()["cluster.devices"] == list(MIXED)
    assert equal.settings()["cluster.devices"] is None
    assert mixed.digest() != equal.digest()
