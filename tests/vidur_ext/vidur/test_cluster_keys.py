"""Every key of the cluster and the simulation changes what a simulation does."""

from __future__ import annotations

import numpy as np
import pytest

from ppo_scheduler.errors import UserError

SARATHI = {"replica_scheduler": "sarathi"}
V1 = {"replica_scheduler": "vllm_v1"}
TIGHT = {"num_blocks": 200, "block_size": 16}


@pytest.fixture
def completed_at(make_config, build_simulation, make_requests):
    """Simulate a small workload under round_robin; return every completion time."""

    def simulate(table=None, **cluster: object) -> np.ndarray:
        config = make_config(
            cluster=cluster,
            workload={"max_tokens": 2048},
            simulation={"engine": "vidur"},
            evaluation={"enabled": False},
        )
        table = table if table is not None else make_requests(qps=60.0)
        simulation = build_simulation(config, "round_robin", table)
        simulation.run()
        return simulation.times("completed_at")

    return simulate


@pytest.mark.shows(
    "cluster.num_replicas",
    "cluster.model_name",
    "cluster.device",
    "cluster.devices",
    "cluster.tensor_parallel_size",
    "cluster.num_pipeline_stages",
    "cluster.replica_scheduler",
    "cluster.batch_size_cap",
    "cluster.chunk_size",
    "cluster.max_tokens_in_batch",
    "cluster.block_size",
    "cluster.num_blocks",
    "cluster.watermark_blocks_fraction",
    "cluster.prefix_caching",
)
@pytest.mark.parametrize(
    ("base", "changed"),
    [
        ({}, {"num_replicas": 2}),
        ({}, {"model_name": "meta-llama/Llama-2-7b-hf"}),
        ({}, {"device": "h100", "network_device": "h100_dgx"}),
        ({}, {"devices": ("a100", "a100", "h100")}),
        ({}, {"tensor_parallel_size": 2}),
        ({}, {"num_pipeline_stages": 2}),
        ({}, {"replica_scheduler": "vllm"}),
        ({}, {"replica_scheduler": "orca"}),
        (SARATHI, {**SARATHI, "chunk_size": 256}),
        (SARATHI, {**SARATHI, "batch_size_cap": 2}),
        ({"replica_scheduler": "vllm"}, {"replica_scheduler": "vllm", "max_tokens_in_batch": 2048}),
        ({"num_blocks": 140}, {**V1, "num_blocks": 140}),
        (V1, {**V1, "chunk_size": 256}),
        (V1, {**V1, "batch_size_cap": 2}),
        ({**V1, **TIGHT}, {**V1, **TIGHT, "watermark_blocks_fraction": 0.4}),
        # These prompts share nothing, but a preempted one finds what is left of itself.
        ({**V1, "num_blocks": 110}, {**V1, "num_blocks": 110, "prefix_caching": False}),
        ({}, {"num_blocks": 140}),
        (TIGHT, {**TIGHT, "block_size": 64, "num_blocks": 50}),
        (TIGHT, {**TIGHT, "watermark_blocks_fraction": 0.4}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_every_cluster_key_changes_the_simulation(completed_at, base, changed):
    assert not np.array_equal(completed_at(**base), completed_at(**changed))


@pytest.mark.shows("cluster.memory_margin_fraction")
def test_memory_margin_leaves_fewer_blocks(make_config, build_simulation, make_requests):
    blocks = []
    for fraction in (0.1, 0.5):
        config = make_config(cluster={"memory_margin_fraction": fraction})
        simulation = build_simulation(config, "round_robin", make_requests(5))
        replica = next(iter(simulation.scheduler._replica_schedulers.values()))
        blocks.append(replica._cache_config.num_blocks)
    assert blocks[1] < blocks[0]


@pytest.mark.shows("cluster.network_device")
def test_network_device_changes_what_collectives_cost(completed_at):
    slow, fast = (
        completed_at(device="a100", network_device=network, tensor_parallel_size=4)
        for network in ("a100_pairwise_nvlink", "a100_dgx")
    )
    assert not np.array_equal(slow, fast)


def test_simulations_of_one_process_do_not_influence_each_other(completed_at):
    first = completed_at()
    completed_at(num_replicas=2)
    np.testing.assert_array_equal(first, completed_at())


def test_a_model_that_does_not_fit_is_refused(make_config, build_simulation, make_requests):
    config = make_config(cluster={"model_name": "meta-llama/Llama-3-70B"})
    with pytest.raises(UserError, match=r"raise cluster\.tensor_parallel_size"):
        build_simulation(config, "round_robin", make_requests(5))
