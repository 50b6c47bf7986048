"""What a cluster cannot serve is said before it is simulated, and what is let through is served."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation
from vidur_ext.vidur.build import simulation_config
from vidur_ext.vidur.engine_inputs import cluster_of
from vidur_ext.vidur.limits import check_requests
from vidur_ext.vidur.simulation import VidurSimulation
from vidur_ext.workload.request_table import RequestTable

ON_VIDUR = {
    "simulation": {"engine": "vidur"},
    "parallel_training": {"num_envs": 1},
    "evaluation": {"enabled": False},
    "ppo_config": {"advantage": "gae"},
    "warmstart": {"enabled": False},
}


def vidurs(max_tokens: int, **cluster: object):
    groups = {"cluster": cluster, "workload": {"max_tokens": max_tokens}, **ON_VIDUR}
    return simulation_config(TrainingConfig.model_validate(groups), "round_robin")


@pytest.mark.parametrize(
    ("cluster", "longest", "message"),
    [
        # 500 tokens: 32 blocks of 16. 1 % of 33 blocks is 0; one more is wanted while decoding.
        ({"num_blocks": 33}, 500, None),
        ({"num_blocks": 32}, 500, "take 32 KV blocks of 16, and 32 less 1 that stay free"),
        # 20 % of 41 blocks is 8.
        ({"num_blocks": 41, "watermark_blocks_fraction": 0.2}, 500, None),
        ({"num_blocks": 40, "watermark_blocks_fraction": 0.2}, 500, "40 less 9 that stay free"),
        ({"replica_scheduler": "vllm", "max_tokens_in_batch": 500}, 500, None),
        ({"replica_scheduler": "vllm", "max_tokens_in_batch": 499}, 500, "raise it to 500"),
        # Orca reserves max_tokens=512 for each request: 32 blocks, however long it is.
        ({"replica_scheduler": "orca", "num_blocks": 32}, 20, None),
        ({"replica_scheduler": "orca", "num_blocks": 31}, 20, "31 less 0 that stay free"),
        # One block is never given out, and none is spared for a request that runs alone.
        ({"replica_scheduler": "vllm_v1", "num_blocks": 33}, 500, None),
        ({"replica_scheduler": "vllm_v1", "num_blocks": 32}, 500, "32 less 1 that stay free"),
        # Blocks larger than a request may be: Vidur counts none at all.
        ({"block_size": 1024}, 500, "1 KV blocks of 1024, and 0 less 1"),
        # One replica of two has too little memory for blocks; no key says so.
        ({"num_replicas": 2, "devices": ("a100", "a40"), "block_size": 1024}, 500, "and 0 less"),
    ],
)
def test_limits_by_hand(cluster, longest, message):
    config = vidurs(512, **cluster)
    if message is None:
        check_requests(config, longest)
    else:
        with pytest.raises(UserError, match=message):
            check_requests(config, longest)


@settings(max_examples=60, deadline=None)
@given(
    scheduler=st.sampled_from(["sarathi", "vllm", "orca"]),
    blocks=st.integers(1, 60),
    block_size=st.sampled_from([1, 8, 16, 100]),
    watermark=st.sampled_from([0.0, 0.01, 0.3]),
    batch_tokens=st.integers(32, 400),
    prompts=st.lists(st.integers(1, 300), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_let_through_is_served(
    scheduler, blocks, block_size, watermark, batch_tokens, prompts, seed
):
    rng = np.random.default_rng(seed)
    outputs = rng.integers(1, 100, len(prompts))
    arrived = np.sort(rng.random(len(prompts)))
    table = RequestTable(arrived, np.array(prompts), outputs)
    config = vidurs(
        512,
        num_replicas=1,
        replica_scheduler=scheduler,
        num_blocks=blocks,
        block_size=block_size,
        watermark_blocks_fraction=watermark,
        max_tokens_in_batch=batch_tokens,
        chunk_size=32,
        batch_size_cap=8,
    )
    try:
        check_requests(config, int((table.prefill_tokens + table.decode_tokens).max()))
    except UserError:
        return
    simulation = CompiledSimulation(cluster_of(config), table, "round_robin")
    simulation.run()
    assert (simulation.completed_at > arrived).all()


@settings(max_examples=40, deadline=None)
@given(
    blocks=st.integers(2, 60),
    block_size=st.sampled_from([1, 8, 16, 100]),
    watermark=st.sampled_from([0.0, 0.01, 0.3]),
    caching=st.booleans(),
    prompts=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_let_through_is_served_by_vllm_v1(
    blocks, block_size, watermark, caching, prompts, seed
):
    rng = np.random.default_rng(seed)
    outputs = rng.integers(1, 60, len(prompts))
    arrived = np.sort(rng.random(len(prompts)))
    table = RequestTable(arrived, np.array(prompts), outputs)
    config = vidurs(
        512,
        num_replicas=1,
        replica_scheduler="vllm_v1",
        num_blocks=blocks,
        block_size=block_size,
        watermark_blocks_fraction=watermark,
        prefix_caching=caching,
        chunk_size=32,
        batch_size_cap=4,
    )
    try:
        check_requests(config, int((table.prefill_tokens + table.decode_tokens).max()))
    except UserError:
        return
    simulation = VidurSimulation(config, table)
    simulation.run()
    assert (simulation.times("completed_at") > arrived).all()
