"""Every problem names its origin, the key's path, the value, what is allowed, and its help."""

from __future__ import annotations

import pytest

from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.problems import REPLACED
from vidur_ext.config.training_config import TrainingConfig

SEED_HELP = "(the only seed: every random stream is spawned from it)"


@pytest.mark.parametrize(
    ("group", "name", "value", "expected"),
    [
        (
            "ppo_config", "clip_ratio", 7,
            "ppo_config.clip_ratio = 7: must be a number > 0 and < 1 "
            "(probability ratios are clipped to 1 +- this)",
        ),
        (
            "training", "seed", -1,
            f"training.seed = -1: must be an integer >= 0 and < 9223372036854775808 {SEED_HELP}",
        ),
        (
            "ppo_config", "minibatch_size", 0.5,
            "ppo_config.minibatch_size = 0.5: must be an integer >= 1 and <= 10000000, in "
            "decisions (decisions per gradient computation, at most)",
        ),
        (
            "ppo_config", "learning_rate", "3e-4",
            'ppo_config.learning_rate = "3e-4": must be a number > 0 and <= 1 '
            "(AdamW step size before the schedule)",
        ),
        (
            "cluster", "num_blocks", 0,
            "cluster.num_blocks = 0: must be an integer >= 1 and <= 100000000 or null "
            "(KV blocks per replica; null computes them from the device's memory)",
        ),
        (
            "checkpointing", "enable_checkpoints", 1,
            "checkpointing.enable_checkpoints = 1: must be true or false "
            "(off: nothing is saved and nothing can be resumed)",
        ),
        (
            "checkpointing", "checkpoint_dir", "",
            'checkpointing.checkpoint_dir = "": must be text of length >= 1 '
            "(folder of the checkpoints)",
        ),
        (
            "cluster", "device", "H100",
            "cluster.device: there is no device 'H100'; choose one of a100, a40, b200, h100, h200, "
            "l40, l40s, rtx_4090, rtx_pro_6000, or name a device file (.json); did you mean "
            '"h100"?',
        ),
        (
            "warmstart", "load_levels", [1, "high"],
            'warmstart.load_levels[1] = "high": must be a number '
            "(arrival rates to learn at, relative to the workload's)",
        ),
        (
            "warmstart", "load_levels", [],
            "warmstart.load_levels = []: must be a list of numbers of length >= 1 "
            "(arrival rates to learn at, relative to the workload's)",
        ),
        (
            "curriculum_learning", "stages", [{"until_requests": 5}, {}],
            "curriculum_learning.stages[1].until_requests: is missing; it must be an integer "
            ">= 1 and <= 1000000000000, in requests (the stage ends at this many requests)",
        ),
        (
            "curriculum_learning", "stages", [3],
            "curriculum_learning.stages[0] = 3: must be an object of keys: until_requests, "
            "qps_scale, latency_threshold_scale, penalty_scale",
        ),
    ],
)  # fmt: skip
def test_a_value_that_is_not_allowed(complaint, group, name, value, expected) -> None:
    assert complaint({group: {name: value}}) == f"my.json: {expected}"


def test_a_group_that_is_no_object_lists_its_keys(complaint) -> None:
    assert complaint({"kl_regularization": 5}) == (
        "my.json: kl_regularization = 5: must be an object of keys: initial_coef, final_coef, "
        "decay_steps"
    )


@pytest.mark.parametrize("text", ["1e999", "NaN", "-Infinity"])
def test_numbers_must_be_finite(complaint, text) -> None:
    message = complaint('{"workload": {"qps": ' + text + "}}")
    expected = (
        "must be a number >= 0.001 and <= 1e+06, in requests/s "
        "(synthetic, presets: mean arrival rate)"
    )
    assert expected in message


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            {"ppo_config": {"clip_ratoi": 0.2}},
            "ppo_config.clip_ratoi = 0.2: unknown key; did you mean ppo_config.clip_ratio?",
        ),
        (
            {"trainng": {"seed": 2}},
            'trainng = {"seed": 2}: unknown key; did you mean training?',
        ),
        (
            {"ppo": {"epochs": 2}},
            'ppo = {"epochs": 2}: unknown key; did you mean ppo_config?',
        ),
        (
            {"gae_lambda": 0.9},
            "gae_lambda = 0.9: unknown key; did you mean ppo_config.gae_lambda?",
        ),
        (
            {"training": {"epochs": 3}},
            "training.epochs = 3: unknown key; did you mean ppo_config.epochs or warmstart.epochs?",
        ),
        (
            {"curriculum_learning": {"stages": [{"until_requests": 1, "qps_scal": 2}]}},
            "curriculum_learning.stages[0].qps_scal = 2: unknown key; did you mean "
            "curriculum_learning.stages[0].qps_scale?",
        ),
        (
            {"kl_regularization": {"": True}},
            "kl_regularization. = true: unknown key; kl_regularization has initial_coef, "
            "final_coef, decay_steps",
        ),
    ],
)
def test_an_unknown_key_leads_to_the_one_that_was_meant(complaint, tree, expected) -> None:
    assert complaint(tree) == f"my.json: {expected}"


def test_a_key_of_an_earlier_version_says_what_replaces_it(complaint) -> None:
    assert complaint({"ppo_config": {"gamma": 0.99}}) == (
        "my.json: ppo_config.gamma = 0.99: is replaced by reward_config.horizon_s, by the clock "
        "and not per decision: with a request every d seconds, a gamma is a horizon of "
        "d / (1 - gamma)"
    )
    assert complaint({}, "ppo_config.gamma=0.9").startswith(
        "command line: ppo_config.gamma = 0.9: is replaced by reward_config.horizon_s"
    )


def test_what_replaces_a_key_exists_and_the_key_does_not() -> None:
    keys = {path for path, _ in leaf_fields(TrainingConfig)}
    assert not REPLACED.keys() & keys
    for instead in REPLACED.values():
        assert instead.removeprefix("is replaced by ").partition(",")[0] in keys


def test_a_top_level_key_like_no_other_lists_the_groups(complaint) -> None:
    assert complaint({"zzz": 1}).startswith(
        "my.json: zzz = 1: unknown key; the config has training"
    )


def test_long_values_are_shortened(complaint) -> None:
    message = complaint({"training": {"seed": ["x" * 500]}})
    assert message.startswith('my.json: training.seed = ["xxx')
    assert len(message) < 250


def test_all_problems_are_named_at_once(complaint) -> None:
    tree = {"training": {"seed": -1, "sed": 1}, "warmstart": {"teachers": ["lor"]}}
    first, *lines = complaint(tree, "workload.qps=0").splitlines()
    assert first == "4 problems:"
    assert [line.split(":")[:2] for line in lines] == [
        ["  my.json", " training.seed = -1"],
        ["  my.json", " training.sed = 1"],
        ["  command line", " workload.qps = 0"],
        ["  my.json", ' warmstart.teachers[0] = "lor"'],
    ]
