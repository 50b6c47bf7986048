"""The whole job in one process: what it leaves, and what each key of the run changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from vidur_ext.config.training_config import TrainingConfig, uneven_interval
from vidur_ext.evaluation.judging import judge, origin_of, policies_of
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.pipeline import run_pipeline
from vidur_ext.runs.start import Start
from vidur_ext.warmstart.demonstrations import Demonstrations

SMALL: dict[str, dict[str, object]] = {
    "training": {"total_requests": 80, "episode_requests": 80},
    "evaluation": {"schedulers": ["least_outstanding", "always_first"], "requests": 32},
    "warmstart": {"teachers": ["vllm_dp"], "demo_requests": 32},
}


@pytest.fixture
def job(make_config):
    """Run the whole job; return its folder."""

    def run(**groups: dict[str, object]) -> Path:
        merged = {
            name: {**SMALL.get(name, {}), **groups.get(name, {})} for name in {*SMALL, *groups}
        }
        config = make_config(**merged)
        return run_pipeline(Start(config), quiet=True).path

    return run


def comparison(folder: Path) -> dict:
    return json.loads((folder / "comparison" / "comparison.json").read_text(encoding="utf-8"))


def compared(folder: Path) -> set[str]:
    return {entry["name"] for entry in comparison(folder)["schedulers"]}


def test_the_job_leaves_policy_demonstrations_and_comparison(job):
    folder = job()
    names = {path.name for path in folder.iterdir()}
    assert {
        "policy.pt", "pretrained_actor.pt", "demonstrations.npz", "warm_start.json", "config.json",
        "validation.json",
    } <= names  # fmt: skip
    report = {path.suffix for path in (folder / "comparison").iterdir()}
    assert report == {".json", ".html", ".png"}
    assert compared(folder) == {"ppo", "warm_start", "least_outstanding", "always_first"}
    [*engines] = comparison(folder)["engines"]["schedulers"]
    assert {one["name"] for one in engines} == compared(folder)
    assert all(one["agrees"] for one in engines)
    assert comparison(folder)["engine"] == "compiled"


def test_with_the_engine_vidur_there_is_one_engine_only(job):
    document = comparison(job(simulation={"engine": "vidur"}))
    assert document["engine"] == "vidur"
    assert "engines" not in document


@pytest.mark.shows("training.output_root")
def test_output_root_holds_the_run(job, tmp_path):
    root = tmp_path / "elsewhere"
    assert job(training={"output_root": str(root)}, evaluation={"enabled": False}).is_relative_to(
        root
    )


@pytest.mark.shows("training.torch_threads")
def test_torch_threads_are_set(job):
    try:
        job(training={"torch_threads": 2}, evaluation={"enabled": False})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.shows("warmstart.enabled")
def test_without_warmstart_there_are_no_demonstrations(job):
    folder = job(warmstart={"enabled": False}, evaluation={"enabled": False})
    assert not (folder / "demonstrations.npz").exists()
    assert (folder / "policy.pt").exists()


@pytest.mark.shows("warmstart.teachers", "warmstart.load_levels", "warmstart.demo_requests")
def test_teachers_levels_and_requests_shape_the_demonstrations(job):
    folder = job(
        warmstart={
            "method": "imitation",
            "teachers": ["vllm_dp", "least_kv"],
            "load_levels": [0.5, 1.5],
            "demo_requests": 20,
        },
        evaluation={"enabled": False},
    )
    data = Demonstrations.load(folder / "demonstrations.npz")
    assert data.teachers == ("vllm_dp", "least_kv")
    assert set(data.load_level) == {0.5, 1.5}
    assert len(data) == 2 * 2 * 20


def test_each_step_of_the_warm_start_is_told_once(job):
    folder = job(monitoring={"log_level": "info"}, evaluation={"enabled": False})
    log = (folder / "ppo_training.log").read_text(encoding="utf-8")
    assert [log.count(f"round {number}: ") for number in (0, 1)] == [1, 1]
    assert len(re.findall(r"step \d is kept: \S+pretrained_actor\.pt", log)) == 1


def test_the_report_says_how_its_policies_came_about(job):
    folder = job()
    facts = comparison(folder)["facts"]
    taught, validated = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("warm_start", "validation")
    )
    first, second = taught["history"]
    assert facts["Warm start"] == (
        f"learned from costs; held-out regret after each round {first['regret']:.3f}, "
        f"{second['regret']:.3f} request-seconds (at random {second['regret_at_random']:.3f})"
    )
    chosen, count = validated["chosen"], len(validated["scores"])
    assert facts["Policy"] == (
        f"that of {chosen['name']}: of {count} validated the one with the smallest "
        f"mean E2E + {validated['ttft_weight']:g} x mean TTFT, {chosen['objective_s']:.3f} s"
    )
    page = (folder / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "learned from costs; held-out regret after each round" in page


def test_of_imitation_it_says_how_far_it_went(job):
    folder = job(warmstart={"method": "imitation"}, evaluation={"enabled": False})
    told = origin_of(RunFolder(folder))["Warm start"]
    assert re.fullmatch(r"imitation, epoch [01] of 2: held-out \d+\.\d% as vllm_dp", told)


def test_of_what_was_not_taught_it_says_nothing(job):
    off = {"warmstart": {"enabled": False}, "checkpointing": {"validation_freq": None}}
    folder = job(**off, evaluation={"enabled": False})
    assert origin_of(RunFolder(folder)) == {}


@pytest.mark.shows("evaluation.enabled")
def test_evaluation_can_be_left_out(job):
    assert not (job(evaluation={"enabled": False}) / "comparison").exists()


@pytest.mark.shows("parallel_training.num_workers")
def test_number_of_workers_changes_nothing_but_time(job):
    first, second = (
        job(
            simulation={"engine": "vidur"},
            parallel_training={"num_workers": workers},
            warmstart={"load_levels": [0.5, 1.0]},
            evaluation={"enabled": False},
        )
        for workers in (1, 2)
    )
    alone, together = (
        Demonstrations.load(folder / "demonstrations.npz") for folder in (first, second)
    )
    np.testing.assert_array_equal(alone.replicas, together.replicas)
    np.testing.assert_array_equal(alone.action, together.action)


@pytest.mark.shows(
    "evaluation.schedulers",
    "evaluation.baseline",
    "evaluation.num_seeds",
    "evaluation.vidur_workloads",
    "evaluation.requests",
    "evaluation.warmup_fraction",
    "evaluation.slo_ttft_s",
    "evaluation.slo_tbt_s",
    "evaluation.bootstrap_samples",
)
def test_every_key_of_the_comparison_changes_it(job, make_config):
    folder = RunFolder(job(evaluation={"enabled": False}))

    def judged(**change: object) -> str:
        evaluation = {**SMALL["evaluation"], "vidur_workloads": 0, **change}
        config = make_config(**{**SMALL, "evaluation": evaluation})
        judge(config, policies_of(folder), folder, quiet=True, origin={})
        document = comparison(folder.path)
        document.pop("facts")
        return re.sub(r'"decisions_per_second": [^,}]*', "", json.dumps(document))

    usual = judged()
    for change in (
        {"schedulers": ["least_outstanding", "round_robin", "always_first"]},
        {"baseline": "always_first"},
        {"num_seeds": 2},
        {"vidur_workloads": 1},
        {"requests": 48},
        {"warmup_fraction": 0.5},
        {"slo_ttft_s": 1e-3},
        {"slo_tbt_s": 1e-4},
        {"bootstrap_samples": 40},
    ):
        assert judged(**change) != usual, change
    assert judged() == usual


def test_equal_seeds_write_equal_weights_and_others_do_not(job):
    states = []
    for seed in (3, 3, 4):
        folder = job(training={"seed": seed}, evaluation={"enabled": False})
        state = torch.load(folder / "policy.pt", weights_only=True)["policy"]["network"]
        states.append(torch.cat([tensor.flatten() for tensor in state.values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_log_gives_the_mean_that_the_report_gives(job):
    folder = job(
        evaluation={"num_seeds": 2, "warmup_fraction": 0.4, "vidur_workloads": 0},
        monitoring={"log_level": "info"},
    )
    log = (folder / "ppo_training.log").read_text(encoding="utf-8")
    told = dict(re.findall(r"compared \d/4, about \S+ left: (\w+), mean E2E (\S+) s", log))
    reported = {
        one["name"]: one["pooled"]["e2e_mean_s"] for one in comparison(folder)["schedulers"]
    }
    assert told == {name: f"{mean:.2f}" for name, mean in reported.items()}


@pytest.mark.parametrize(
    ("interval", "envs", "said"),
    [(64, 1, False), (50, 1, True), (16, 2, False), (24, 2, True)],
)
def test_an_interval_that_is_no_multiple_of_a_rollout_gets_a_warning(
    make_config, interval, envs, said
):
    config = make_config(
        checkpointing={"checkpoint_interval": interval},
        parallel_training={"num_envs": envs},
    )
    uneven = uneven_interval(config)
    assert (uneven is not None) == said
    if uneven is not None:
        steps = 32 // envs
        assert f"checkpoint_interval={interval} is no multiple of the {steps} steps" in uneven
        assert f"choose {interval // steps * steps} or " in uneven


def test_the_default_interval_is_whole_rollouts_and_the_log_warns_of_another(job):
    assert uneven_interval(TrainingConfig()) is None
    folder = job(checkpointing={"checkpoint_interval": 50}, evaluation={"enabled": False})
    log = (folder / "ppo_training.log").read_text(encoding="utf-8")
    assert "checkpoint_interval=50 is no multiple of the 32 steps of a rollout" in log
