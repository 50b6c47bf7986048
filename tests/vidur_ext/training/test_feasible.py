"""What a run would end in later is said before it begins, and every listed value can begin."""

from __future__ import annotations

import json
import resource
import typing

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import choices, leaf_fields
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.training.feasible import check_feasible, memory_bytes, memory_needs

LISTED = [
    (path, value)
    for path, field in leaf_fields(TrainingConfig)
    for part in (field.annotation, *typing.get_args(field.annotation))
    for value in choices(part)
]


@pytest.mark.parametrize(("path", "value"), LISTED, ids=lambda part: str(part))
def test_every_listed_value_can_begin_or_is_refused_with_the_way_out(path, value):
    listed = [value] if path in ("warmstart.teachers", "evaluation.schedulers") else value
    if path == "cluster.devices":
        listed = [value] * 4
    problem = None
    try:
        check_feasible(load_config(None, [f"{path}={json.dumps(listed)}"]))
    except UserError as refused:
        problem = str(refused)
    ways_out = ("change it", "set ", "choose ", "needs ", "raise ", "must be one of schedulers")
    assert problem is None or any(way in problem for way in ways_out)


@pytest.mark.parametrize("scheduler", ["sarathi", "vllm", "orca"])
def test_every_replica_scheduler_serves_the_default_workload(scheduler):
    check_feasible(load_config(None, [f"cluster.replica_scheduler={scheduler}"]))


def csv(path, prompts):
    rows = [f"{number},{prompt},10" for number, prompt in enumerate(prompts)]
    path.write_text("\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *rows]) + "\n")
    return str(path)


def replayed(path, **cluster):
    return TrainingConfig.model_validate(
        {
            "workload": {"source": "trace", "trace_file": path},
            "cluster": {"replica_scheduler": "vllm", **cluster},
            "evaluation": {"num_seeds": 1, "requests": 16},
            "checkpointing": {"validation_seeds": 1, "validation_requests": 16},
        }
    )


def test_a_long_request_at_the_end_of_a_trace_is_met_before_the_beginning(tmp_path):
    path = csv(tmp_path / "t.csv", [100] * 499 + [5000])
    check_feasible(replayed(path, max_tokens_in_batch=5010))
    with pytest.raises(UserError, match=r"a request may have 5010 tokens, .* raise it to 5010"):
        check_feasible(replayed(path, max_tokens_in_batch=5009))


def test_the_longest_request_of_a_trace_counts_and_not_what_might_have_been(tmp_path):
    path = csv(tmp_path / "t.csv", [100] * 500)
    check_feasible(replayed(path, max_tokens_in_batch=110))


def test_a_trace_too_short_to_validate_on_is_met_before_the_beginning(tmp_path):
    path = csv(tmp_path / "t.csv", [100] * 40)
    config = replayed(path)
    with pytest.raises(UserError, match=r"too few for .*evaluation\.num_seeds|validation_seeds"):
        check_feasible(config)


HUGE = [
    ("ppo_config.rollout_len=10000000", "ppo_config.rollout_len, cluster.num_replicas"),
    ("warmstart.labels_per_round=10000000", "warmstart.rounds and labels_per_round"),
    ("evaluation.requests=1000000", "evaluation.num_seeds, requests and schedulers"),
    ("training.episode_requests=1000000", "parallel_training.num_envs, training.episode_requests"),
    ("checkpointing.validation_requests=1000000", "checkpointing.validation_seeds and"),
    ("cluster.batch_size_cap=4096", "cluster.batch_size_cap, chunk_size"),
]


@pytest.mark.parametrize(("override", "named"), HUGE)
def test_memory_that_a_number_asks_for_is_counted(override, named):
    before, after = (memory_needs(load_config(None, changes)) for changes in ([], [override]))
    [part] = [keys for keys in after if keys.startswith(named)]
    assert after[part] > 10 * before[part]


def test_memory_that_is_not_there_is_refused_with_the_keys(monkeypatch):
    few = 10**9
    monkeypatch.setattr(resource, "getrlimit", lambda which: (few, few))
    assert memory_bytes() == few
    check_feasible(TrainingConfig())
    with pytest.raises(UserError, match=r"ppo_config\.rollout_len, .* ask for .* GB of memory"):
        check_feasible(load_config(None, ["ppo_config.rollout_len=8000000"]))


FORESEEING = ["kl_regularization.final_coef=0.02", "kl_regularization.decay_steps=1000"]
CONVERSING = ["workload.source=agent", "workload.qps=1"]


def test_turns_that_wait_for_answers_can_be_trained_on():
    check_feasible(load_config(None, CONVERSING))


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ([*FORESEEING, "terminal_value.enabled=true"], "terminal_value.enabled lets simulations"),
        (["observation.signal_delay_s=0.1"], "evaluation.vidur_workloads to 0"),
    ],
)
def test_what_such_turns_cannot_have_is_refused_before_anything_is_made(said, named):
    without_planners = 'evaluation.schedulers=["round_robin","least_outstanding"]'
    check_feasible(load_config(None, [without_planners, *said]))
    with pytest.raises(UserError, match=named):
        check_feasible(load_config(None, [without_planners, *said, *CONVERSING]))
