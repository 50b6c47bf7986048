"""vLLM's V1 scheduler inside Vidur: batches, requests and what routers see follow its steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.view import Quantity
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.simulation import VidurSimulation
from vidur_ext.vidur.tracker import RequestTracker
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

BLOCK = 16


@dataclass
class Run:
    """A simulation of one replica that has run, and the batches it formed."""

    simulation: VidurSimulation
    batches: list
    """Per batch, (request, tokens, KV tokens) of each request in it."""

    @property
    def requests(self):
        return self.simulation.requests

    @property
    def replica(self):
        [replica] = self.simulation.scheduler._replica_schedulers.values()
        return replica


@pytest.fixture
def build(make_config, build_simulation):
    """Build (not run) one vllm_v1 replica for rows (arrival [s], prompt, output tokens).

    ``texts`` are segments of each prompt as (id, tokens); the answer of row i is segment 1000 + i.
    """

    def build(rows, texts=None, **cluster) -> Run:
        config = make_config(
            cluster={"num_replicas": 1, "replica_scheduler": "vllm_v1", **cluster},
            workload={"max_tokens": 2048},
            simulation={"engine": "vidur"},
            evaluation={"enabled": False},
        )
        table = RequestTable.from_rows(rows)
        if texts is not None:
            answers = [1000 + row for row in range(len(rows))]
            table = replace(table, prompts=Prompts.of(texts, answers))
        simulation = build_simulation(config, "round_robin", table)
        run = Run(simulation, [])
        form = run.replica._get_next_batch

        def remember(time):
            batch = form(time)
            if batch is not None:
                numbers = [simulation.requests.index(r) for r in batch.requests]
                columns = (numbers, batch.num_q_tokens, batch.num_kv_tokens)
                run.batches.append(list(zip(*columns, strict=True)))
            return batch

        run.replica._get_next_batch = remember
        return run

    return build


def test_prompts_are_computed_in_chunks_beside_answers(build):
    run = build([(0.0, 100, 3), (0.0, 600, 2)], chunk_size=512)
    run.simulation.run()
    assert run.batches == [
        [(0, 100, 100), (1, 412, 412)],
        [(0, 1, 101), (1, 188, 600)],
        [(0, 1, 102), (1, 1, 601)],
    ]


def test_tokens_that_are_found_are_read_and_not_computed(build):
    rows = [(0.0, 100, 1), (10.0, 150, 2)]
    run = build(rows, texts=[[(1, 100)], [(1, 100), (2, 50)]])
    run.simulation.run()
    assert run.batches == [[(0, 100, 100)], [(1, 54, 150)], [(1, 1, 151)]]
    alone = build(rows[1:], texts=[[(1, 150)]])
    alone.simulation.run()
    for simulation in (run.simulation, alone.simulation):
        assert simulation.requests[-1].completed
    fast, slow = (one.requests[-1]._prefill_completed_at for one in (run, alone))
    assert fast < slow, "fewer tokens take less time"


def test_an_answer_is_found_by_the_next_turn(build):
    rows = [(0.0, 40, 24), (10.0, 84, 1)]
    run = build(rows, texts=[[(1, 40)], [(1, 40), (1000, 24), (2, 20)]])
    run.simulation.run()
    # 63 tokens of the first turn were computed, three blocks are full.
    assert run.batches[-1] == [(1, 84 - 48, 84)]


def test_without_caching_everything_is_computed(build):
    texts = [[(1, 100)], [(1, 100), (2, 50)]]
    run = build([(0.0, 100, 1), (10.0, 150, 1)], texts=texts, prefix_caching=False)
    run.simulation.run()
    assert run.batches == [[(0, 100, 100)], [(1, 150, 150)]]


def test_requests_whose_texts_are_unknown_share_nothing(build):
    run = build([(0.0, 100, 1), (10.0, 100, 1)])
    run.simulation.run()
    assert run.batches == [[(0, 100, 100)], [(1, 100, 100)]]


def test_a_request_that_is_preempted_within_its_prompt_begins_it_anew(build):
    # 22 blocks of 16: two for the first prompt and 20 for the second, which is admitted and has 31
    # tokens computed in each step beside the first answer. That has meanwhile got a third block,
    # so for the last chunk one is missing.
    run = build([(0.0, 31, 80), (0.0, 310, 2)], num_blocks=23, chunk_size=32, batch_size_cap=32)
    run.simulation.run()
    first, second = run.requests
    assert (first.num_restarts, second.num_restarts) == (0, 1)
    assert (second.num_prefill_tokens, second.num_decode_tokens) == (310, 2)
    # By its end the first has four blocks more: two that held nothing, and the second's last two.
    [resumed] = [i for i, batch in enumerate(run.batches) if len(batch) == 1 and batch[0][0] == 1][
        :1
    ]
    assert run.batches[resumed] == [(1, 32, 15 * 16 + 32)]
    assert second.completed


def test_a_request_that_is_preempted_within_its_answer_keeps_it_as_prompt(build):
    run = build([(0.0, 80, 40), (0.0, 64, 40)], num_blocks=12, chunk_size=512)
    run.simulation.run()
    second = run.requests[1]
    assert second.num_restarts >= 1
    assert second.num_prefill_tokens > 64
    assert second.num_prefill_tokens + second.num_decode_tokens == 64 + 40
    first_tokens = [request._prefill_completed_at for request in run.requests]
    assert first_tokens[0] == first_tokens[1], "the first token was answered before, with the other"
    assert second.completed_at > run.requests[0].completed_at


@pytest.mark.parametrize("seed", range(6))
def test_vidurs_requests_stay_in_step(build, seed):
    """Vidur asserts itself that no token is counted twice; here, that all of them are counted."""
    rng = np.random.default_rng(seed)
    arrived = np.sort(rng.random(40)) * 2.0
    prompts, outputs = rng.integers(1, 400, 40), rng.integers(1, 60, 40)
    rows = list(zip(arrived.tolist(), prompts.tolist(), outputs.tolist(), strict=True))
    texts = [
        [(int(rng.integers(3)), min(n, 100)), (100 + i, n)] for i, (_, n, _) in enumerate(rows)
    ]
    texts = [[(first, a), (own, n - a)][: 1 + (n > a)] for [(first, a), (own, n)] in texts]
    run = build(rows, texts=texts, num_blocks=45, chunk_size=128, batch_size_cap=16)
    run.simulation.run()
    assert sum(request.num_restarts for request in run.requests) > 0
    for request, (_, prompt, output) in zip(run.requests, rows, strict=True):
        assert request.completed
        assert request.total_tokens == request.num_processed_tokens == prompt + output
    done = [0] * len(rows)
    for batch in run.batches:
        assert sum(tokens for _, tokens, _ in batch) <= 128
        for number, tokens, kv in batch:
            assert tokens <= kv <= rows[number][1] + rows[number][2] - 1
            done[number] = kv
    assert done == [prompt + output - 1 for _, prompt, output in rows]
    assert run.replica.is_empty()
    assert run.replica.num_allocated_blocks == 0


def test_routers_see_what_is_left_to_compute_and_the_blocks_in_use(build):
    """Between two steps: 48 of the second prompt's tokens were found, 32 computed, 70 are left."""
    rows = [(0.0, 48, 1), (0.0, 150, 1), (0.0, 20, 1)]
    run = build(
        rows, texts=[[(1, 48)], [(1, 48), (2, 102)], [(3, 20)]], chunk_size=32, batch_size_cap=32
    )
    replica, requests = run.replica, run.requests
    tracker = RequestTracker([replica])
    for request in requests:
        tracker.assign(0, request)
        replica.add_request(request)
    assert replica.num_pending_requests == 3
    assert replica.get_pending_requests() == requests

    def look():
        return tracker.observe(1.0).snapshot.table[:, 0]

    def step():
        batch = replica.on_schedule(1.0)
        batch.on_schedule(1.0)
        in_between = look()
        for request, tokens in zip(batch.requests, batch.num_q_tokens, strict=True):
            request.on_batch_stage_end(1.0, 0, 1.0, 1.0, tokens)
        batch.on_batch_end(1.0)
        replica._num_running_stages -= 1
        replica.on_batch_end(batch)
        return in_between

    step()
    begun = step()
    # 16 tokens of the first are left; the second is admitted with 48 found and 16 to compute.
    assert begun[Quantity.WAITING] == 1
    assert begun[Quantity.PENDING_PREFILL_TOKENS] == 16 + 102 + 20
    assert begun[Quantity.KV_BLOCKS_USED] == 3 + 1, "three blocks are shared"
    assert look()[Quantity.PENDING_PREFILL_TOKENS] == 86 + 20
    assert look()[Quantity.CONTEXT_TOKENS] == 64
    step()
    assert look()[Quantity.PENDING_PREFILL_TOKENS] == 54 + 20
    assert replica.num_pending_requests == 1
    assert look()[Quantity.KV_BLOCKS_USED] == 6
    assert replica.memory_usage_percent == pytest.approx(600 / replica._cache_config.num_blocks)


def test_pipeline_stages_are_refused(tmp_path):
    cluster = {"replica_scheduler": "vllm_v1", "num_pipeline_stages": 2}
    with pytest.raises(ValueError, match=r"one pipeline stage: set num_pipeline_stages=2 to 1"):
        TrainingConfig.model_validate({"cluster": cluster})
    flags = ("--replica_scheduler_config_type", "vllm_v1")
    flags += ("--replica_config_num_pipeline_stages", "2", "--replica_config_tensor_parallel_size")
    flags += ("1", "--execution_time_predictor_config_type", "analytic")
    config = parse_simulation_config(
        [*flags, "--metrics_config_output_dir", str(tmp_path), "--no-metrics_config_write_metrics"]
    )
    with pytest.raises(UserError, match="set --replica_config_num_pipeline_stages 1"):
        VidurSimulation(config, RequestTable.from_rows([(0.0, 10, 1)]))


@pytest.mark.parametrize("caching", [True, False])
def test_its_keys_are_flags_of_the_simulator(tmp_path, make_config, caching):
    config = make_config(
        cluster={"replica_scheduler": "vllm_v1", "prefix_caching": caching, "chunk_size": 640},
        simulation={"engine": "vidur"},
        evaluation={"enabled": False},
    )
    parsed = parse_simulation_config(cli_flags(config, "lor", metrics_dir=str(tmp_path)))
    assert parsed.cluster_config.replica_scheduler_config.chunk_size == 640
    assert parsed.cluster_config.cache_config.enable_prefix_caching is caching
    predictor = parsed.execution_time_predictor_config
    assert predictor.prediction_max_prefill_chunk_size == 640


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--cluster_config_prefix_knowledge all", "expected none, exact, approximate"),
        (
            "--cluster_config_prefix_knowledge exact",
            "--cluster_config_prefix_knowledge exact: replicas have prefix caches with "
            "--replica_scheduler_config_type vllm_v1",
        ),
        (
            "--cluster_config_kv_event_delay_s 0.5",
            "--cluster_config_kv_event_delay_s 0.5 delays what replicas report: give "
            "--cluster_config_prefix_knowledge exact",
        ),
    ],
)
def test_knowledge_that_nobody_can_have_is_refused(tmp_path, flags, message):
    place = ("--metrics_config_output_dir", str(tmp_path), "--no-metrics_config_write_metrics")
    predictor = ("--execution_time_predictor_config_type", "analytic")
    with pytest.raises(UserError, match=message):
        parse_simulation_config([*flags.split(), *place, *predictor])
