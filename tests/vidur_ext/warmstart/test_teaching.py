"""A warm start as a run has it: what it begins with, what it leaves, and its second start."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.errors import UserError
from ppo_scheduler.policy.routing_policy import load_policy, read_policy_state
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import RunFolder
from vidur_ext.warmstart.behaviour_cloning import EpochReport
from vidur_ext.warmstart.cost_learning import RoundReport
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.sets import staged_set, write_set
from vidur_ext.warmstart.taught_policy import TaughtPolicy
from vidur_ext.warmstart.teaching import new_demonstrations, teach

IMITATION = {"method": "imitation", "teachers": ["vllm_dp"], "demo_requests": 32}


@pytest.fixture
def taught(tmp_path):
    """Teach in a folder."""

    def run(
        config: TrainingConfig, name: str, watch=lambda report: None, **arguments: Path
    ) -> tuple[RunFolder, TaughtPolicy]:
        folder = RunFolder.at(tmp_path / name)
        return folder, teach(config, folder, watch, **arguments)

    return run


@pytest.fixture
def make_set(tmp_path):
    """Keep what a config collects as a set."""

    def make(config: TrainingConfig, name: str) -> Path:
        with staged_set(tmp_path / name) as folder:
            demonstrations = new_demonstrations(config, lambda text: None)
            now = datetime.now(timezone.utc)
            write_set(folder, demonstrations, config, "some requests", now)
        return tmp_path / name

    return make


def same_policy(one: RunFolder, other: RunFolder) -> bool:
    states = [read_policy_state(folder.pretrained_actor) for folder in (one, other)]
    networks = [torch.cat([w.flatten() for w in state["network"].values()]) for state in states]
    statistics = [repr(state["replica_statistics"]) for state in states]
    return torch.equal(*networks) and statistics[0] == statistics[1]


def document(folder: RunFolder) -> dict:
    return json.loads(folder.warm_start.read_text(encoding="utf-8"))


@pytest.mark.shows("warmstart.method")
def test_a_run_keeps_policy_decisions_and_history_of_either_method(make_config, taught):
    priced, learned = taught(make_config(), "costs")
    shown, cloned = taught(make_config(warmstart=IMITATION), "imitation")
    for folder, result, method in ((priced, learned, "costs"), (shown, cloned, "imitation")):
        told = document(folder)
        assert (told["method"], told["best"]) == (method, result.best)
        assert told["history"] == [report.to_dict() for report in result.history]
        data = Demonstrations.load(folder.demonstrations)
        assert data.priced == (method == "costs")
        kept = load_policy(folder.pretrained_actor, result.policy.schema)
        seen = data.observation()
        np.testing.assert_array_equal(kept.greedy(seen), result.policy.greedy(seen))
    steps = [sorted(document(folder)["history"][0]) for folder in (priced, shown)]
    assert steps == [
        ["agreement", "labels", "number", "regret", "regret_at_random"],
        ["accuracy", "holdout_loss", "number", "train_loss"],
    ]
    assert not same_policy(priced, shown)


def test_a_set_stands_for_the_first_round(make_config, taught, make_set):
    """What a set holds is what the run would have collected: the rest is the same to the bit."""
    config = make_config()
    collected, _ = taught(config, "collects")
    given, result = taught(config, "given", demonstrations=make_set(config, "set"))
    assert not given.demonstrations.exists()
    assert len(result.history) == config.warmstart.rounds
    assert same_policy(collected, given)
    other_set = make_set(make_config(training={"seed": 5}), "other")
    other, _ = taught(config, "other run", demonstrations=other_set)
    assert not same_policy(collected, other)


def test_a_set_without_costs_cannot_teach_costs_and_the_ways_out_are_named(
    make_config, taught, make_set, tmp_path
):
    shown = make_set(make_config(warmstart=IMITATION), "shown")
    with pytest.raises(UserError, match=r"set warmstart.method to .imitation., or collect a new"):
        taught(make_config(), "run", demonstrations=shown)
    assert not list((tmp_path / "run").iterdir())


def test_a_priced_set_can_be_imitated(make_config, taught, make_set):
    config = make_config(warmstart=IMITATION)
    folder, result = taught(config, "run", demonstrations=make_set(make_config(), "set"))
    assert set(result.report.accuracy) == {"lookahead"}
    assert document(folder)["method"] == "imitation"


def test_a_policy_to_fine_tune_routes_the_first_round_and_keeps_its_statistics(make_config, taught):
    warmstart = {"random_share": 0.0, "label_share": 1.0, "labels_per_round": 64}
    config = make_config(warmstart=warmstart)
    begun, _ = taught(config, "begun")
    tuned, _ = taught(config, "tuned", initial=begun.pretrained_actor)
    policy = load_policy(begun.pretrained_actor, observation_schema(config.observation))
    shares = {}
    for folder in (begun, tuned):
        data = Demonstrations.load(folder.demonstrations)
        best, its = data.costs.argmin(axis=1), policy.greedy(data.observation())
        shares[folder] = (data.action == best).mean(), (data.action == its).mean()
    assert shares[begun][0] == 1.0
    assert shares[tuned][0] < 0.9
    assert shares[tuned][1] > 0.9  # between replicas that look alike the last bit decides
    before, after = (read_policy_state(folder.pretrained_actor) for folder in (begun, tuned))
    for name in ("replica_statistics", "context_statistics"):
        assert repr(before[name]) == repr(after[name])
    assert not same_policy(begun, tuned)


@pytest.mark.parametrize("method", ["costs", "imitation"])
def test_a_warm_start_that_was_ended_begins_again_and_comes_to_the_same_bits(
    make_config, taught, method
):
    config = make_config(warmstart={**IMITATION, "method": method})
    straight, _ = taught(config, "straight")

    def end(report) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(config, "ended", end)
    ended = RunFolder(straight.path.with_name("ended"))
    assert not ended.pretrained_actor.exists()
    assert not ended.warm_start.exists()
    again, _ = taught(config, "ended")
    assert same_policy(straight, again)
    assert again.warm_start.read_bytes() == straight.warm_start.read_bytes()


@pytest.mark.parametrize(("regret", "poor"), [(0.5, False), (0.51, True)])
def test_a_policy_that_is_little_better_than_chance_is_pointed_out(regret, poor):
    doubt = RoundReport(0, 100, regret, regret_at_random=1.0, agreement=0.26).doubt()
    assert (doubt is not None) == poor
    assert not poor or "51% of what random ones do" in doubt


@pytest.mark.parametrize(("share", "poor"), [(0.5, False), (0.26, True)])
def test_a_clone_that_does_not_agree_is_pointed_out(share, poor):
    doubt = EpochReport(0, 1.0, 1.0, {"least_kv": 0.9, "vllm_dp": share}).doubt()
    assert (doubt is not None) == poor
    assert not poor or "it chooses as vllm_dp in less than 50%" in doubt


def test_the_log_warns_of_a_poor_warm_start(make_config, taught, caplog):
    few = {**IMITATION, "demo_requests": 128, "epochs": 1}
    _, policy = taught(make_config(warmstart=few, cluster={"num_replicas": 8}), "few")
    assert policy.report.doubt() is not None
    assert f"warm start: {policy.report.doubt()}" in caplog.messages
