"""Paths of the config may be built from the experiment's name, the seed and the output folder."""

from __future__ import annotations

import json

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import RouterConfig, TrainingConfig
from vidur_ext.vidur.learner_flags import learner_config, learner_values

LOCAL = [
    "simulation.predictor=local_random_forrest",
    "simulation.engine=vidur",
    "parallel_training.num_envs=1",
    "ppo_config.advantage=gae",
    "warmstart.method=imitation",
    "evaluation.enabled=false",
]
PATHS = {
    "training": {"exp_name": "night", "seed": 7, "output_root": "out/${exp_name}"},
    "checkpointing": {
        "checkpoint_dir": "${output_root}/ckpt_${seed}",
        "fork_from_checkpoint": "${output_root}/a $5 file.pt",
    },
}


def learners_part(config: TrainingConfig) -> RouterConfig:
    return RouterConfig(**{name: getattr(config, name) for name in RouterConfig.model_fields})


@pytest.mark.shows("training.exp_name")
def test_variables_stand_for_their_values(write) -> None:
    config = load_config(write(json.dumps(PATHS)))
    assert config.training.output_root == "out/night"
    assert config.checkpointing.checkpoint_dir == "out/night/ckpt_7"
    assert config.checkpointing.fork_from_checkpoint == "out/night/a $5 file.pt"


@pytest.mark.parametrize(
    ("key", "others"),
    [
        ("training.output_root", []),
        ("checkpointing.checkpoint_dir", []),
        ("checkpointing.resume_from_checkpoint", []),
        ("checkpointing.fork_from_checkpoint", []),
        ("workload.trace_file", ["workload.source=trace"]),
        ("simulation.profile_dir", LOCAL),
    ],
)
def test_a_tilde_stands_for_the_home_folder(monkeypatch, key, others) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for path, meant in (("~/x", "/home/ada/x"), ("./~/x", "./~/x"), ("x~", "x~")):
        settings = load_config(None, [*others, f"{key}={path}"]).settings()
        assert settings[key] == meant


def test_a_tilde_before_the_output_root_is_replaced_once(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = load_config(
        None, ["training.output_root=~/o", "checkpointing.checkpoint_dir=${output_root}/c"]
    )
    assert config.checkpointing.checkpoint_dir == "/home/ada/o/c"


def test_replaced_paths_pass_through_the_flags_unchanged(write) -> None:
    config = load_config(write(json.dumps(PATHS)))
    assert learner_config(learner_values(config)) == learners_part(config)


def test_flags_may_have_variables_too() -> None:
    flat = {**learner_values(RouterConfig()), "checkpointing_checkpoint_dir": "c/${exp_name}"}
    assert learner_config(flat).checkpointing.checkpoint_dir == "c/ppo_warmstart"


@pytest.mark.parametrize("key", ["training.output_root", "checkpointing.checkpoint_dir"])
def test_an_unknown_variable_is_named(complaint, key) -> None:
    text = complaint(None, f"{key}=out/${{nobody}}")
    assert "there is no variable ${nobody}; there are ${exp_name}, ${seed}" in text


def test_the_output_root_cannot_contain_itself(complaint) -> None:
    assert "no variable ${output_root}" in complaint(None, "training.output_root=${output_root}/x")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "${seed}"])
def test_the_experiments_name_is_one_folder_name(name) -> None:
    with pytest.raises(UserError, match=r"training\.exp_name"):
        load_config(None, [f"training.exp_name={name}"])


@pytest.mark.parametrize(("text", "value"), [("false", False), ("runs/a.pt", "runs/a.pt")])
def test_nothing_or_a_path_is_resumed(text, value) -> None:
    config = load_config(None, [f"checkpointing.resume_from_checkpoint={text}"])
    assert config.checkpointing.resume_from_checkpoint == value
