"""``--set group.key=value`` sets one key over the file's value."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidur_ext.config.loading import dump_config, load_config
from vidur_ext.config.training_config import TrainingConfig


def test_overrides_win_over_the_file_and_the_last_wins(write) -> None:
    path = write({"training": {"seed": 1, "total_requests": 600}})
    config = load_config(path, ["training.seed=2", "training.seed=3"])
    assert (config.training.seed, config.training.total_requests) == (3, 600)


@pytest.mark.parametrize(
    ("override", "group", "name", "value"),
    [
        ("workload.qps=20", "workload", "qps", 20.0),
        ("ppo_config.target_kl=null", "ppo_config", "target_kl", None),
        ("observation.history=false", "observation", "history", False),
        ("cluster.replica_scheduler=vllm", "cluster", "replica_scheduler", "vllm"),
        ('cluster.replica_scheduler="vllm"', "cluster", "replica_scheduler", "vllm"),
        ("warmstart.load_levels=[0.5, 2]", "warmstart", "load_levels", (0.5, 2.0)),
        ("training.output_root=a=b", "training", "output_root", "a=b"),
        ("training.output_root=2024", "training", "output_root", "2024"),
        ('training.output_root="2024"', "training", "output_root", "2024"),
        ("training.output_root=true", "training", "output_root", "true"),
        (" training.seed =4", "training", "seed", 4),
    ],
)
def test_a_value_is_json_or_else_text(override, group, name, value) -> None:
    assert getattr(getattr(load_config(None, [override]), group), name) == value


def test_null_unsets_an_optional_text(write) -> None:
    path = write({"workload": {"source": "trace", "trace_file": "t.csv"}})
    config = load_config(path, ["workload.trace_file=null", "workload.source=synthetic"])
    assert config.workload.trace_file is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.seed", "--set training.seed: expected GROUP.KEY=VALUE, e.g."),
        ("=3", "--set =3: expected GROUP.KEY=VALUE"),
        ("training.=3", "--set training.=3: expected GROUP.KEY=VALUE"),
        ('training={"seed": 1}', '--set training={"seed": 1}: training is a group; set its keys'),
        (
            "training.sed=3",
            "command line: training.sed = 3: unknown key; did you mean training.seed?",
        ),
        ("seed=3", "command line: seed = 3: unknown key; did you mean training.seed?"),
        (
            "trainng.seed=3",
            'command line: trainng = {"seed": 3}: unknown key; did you mean training?',
        ),
        (
            "training.seed=x",
            'command line: training.seed = "x": must be an integer >= 0 and < 9223372036854775808',
        ),
        ("training.output_root=\udcff", "command line: '\\udcff' is half of a character"),
    ],
)
def test_what_cannot_be_set_is_refused(complaint, override, expected) -> None:
    assert complaint(None, override).startswith(expected)


def test_a_key_below_a_value_is_refused(complaint) -> None:
    assert complaint({"training": {"seed": 1}}, "training.seed.x=2") == (
        "--set training.seed.x=2: training.seed holds a value, so it has no key x"
    )


def test_without_file_and_overrides_all_is_default() -> None:
    assert load_config(None) == TrainingConfig()


def test_paths_stay_as_they_are_written(write) -> None:
    path = write({"checkpointing": {"checkpoint_dir": "../here"}})
    moved = Path("below/my.json")
    moved.parent.mkdir()
    path.rename(moved)
    assert load_config(moved).checkpointing.checkpoint_dir == "../here"


def test_what_is_dumped_can_be_loaded_and_dumps_the_same(write) -> None:
    text = dump_config(load_config(None, ["training.output_root=./größe", "training.seed=3"]))
    assert "größe" in text
    assert dump_config(load_config(write(text))) == text
