"""Whatever is configured arrives: through JSON and through flat flags, and nothing is confused."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import bounds, choices, is_model, leaf_fields
from vidur_ext.config.loading import dump_config
from vidur_ext.config.training_config import RouterConfig, TrainingConfig
from vidur_ext.vidur.learner_flags import learner_config, learner_flags, learner_values

KEYS = dict(leaf_fields(TrainingConfig))


def learners_part(config: TrainingConfig) -> RouterConfig:
    return RouterConfig(**{name: getattr(config, name) for name in RouterConfig.model_fields})


def values_of(annotation: Any, limits: dict[str, float]) -> st.SearchStrategy[Any]:
    """Return JSON values of a type, most of them within its limits."""
    if choices(annotation):
        return st.sampled_from(choices(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return st.one_of(*(values_of(part, limits) for part in typing.get_args(annotation)))
    if typing.get_origin(annotation) is tuple:
        element = values_of(typing.get_args(annotation)[0], {})
        return st.lists(element, min_size=1, max_size=3)
    if is_model(annotation):
        return st.fixed_dictionaries(
            {name: values_of_key(field) for name, field in annotation.model_fields.items()}
        )
    low, high = limits.get(">", limits.get(">=", 0)), limits.get("<", limits.get("<=", 1000))
    return {
        bool: st.booleans(),
        int: st.integers(int(low), int(high)),
        float: st.floats(low, high),
        str: st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()),
        type(None): st.none(),
    }[annotation]


def values_of_key(field: FieldInfo) -> st.SearchStrategy[Any]:
    ranges = dict(text.rsplit(" ", 1) for text in bounds(field))
    if "matching" in ranges:
        return st.from_regex(ranges["matching"], fullmatch=True)
    limits = {sign: float(number) for sign, number in ranges.items()}
    return values_of(field.annotation, limits)


@st.composite
def configs(draw: st.DrawFn) -> TrainingConfig:
    """Draw valid configs in which some keys differ from their defaults."""
    tree: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=4)):
        *groups, name = path.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = draw(values_of_key(KEYS[path]))
    try:
        return TrainingConfig.model_validate_json(json.dumps(tree))
    except ValidationError:
        assume(False)
        raise


@given(configs())
def test_the_learners_part_comes_back_from_its_flat_values(config) -> None:
    assert learner_config(learner_values(config)) == learners_part(config).with_paths()


@given(configs())
def test_a_dumped_config_comes_back_whole(config) -> None:
    assert TrainingConfig.model_validate_json(dump_config(config)) == config


@given(configs(), configs())
def test_digests_are_equal_exactly_for_equal_configs(one, other) -> None:
    assert (one.digest() == other.digest()) == (one == other)


def test_flat_values_have_the_types_that_the_flags_declare() -> None:
    config = RouterConfig()
    declared = {name: (kind, default) for name, kind, default, _ in learner_flags()}
    for name, value in learner_values(config).items():
        kind, default = declared[name]
        assert type(value) is kind
        assert value == default


def test_no_two_keys_share_a_flat_name() -> None:
    names = [name for name, _, _, _ in learner_flags()]
    assert len(set(names)) == len(names) == len(list(leaf_fields(RouterConfig)))


def test_a_flag_that_is_not_allowed_is_named() -> None:
    values = {**learner_values(RouterConfig()), "ppo_config_clip_ratio": 7.0, "training_seed": -1}
    with pytest.raises(UserError) as caught:
        learner_config(values)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 problems:"
    assert lines[1].startswith(
        "  --p_p_o_global_scheduler_modular_config_training_seed: training.seed = -1: must be"
    )
    assert "_config_ppo_config_clip_ratio: ppo_config.clip_ratio = 7.0: must be" in lines[2]


def test_a_flag_whose_json_is_broken_is_named() -> None:
    values = {**learner_values(RouterConfig()), "ppo_config_target_kl": "nul"}
    with pytest.raises(UserError, match="config_ppo_config_target_kl nul: not JSON"):
        learner_config(values)


def test_flags_that_contradict_each_other_are_refused() -> None:
    values = {
        **learner_values(RouterConfig()),
        "ppo_config_rollout_len": 2,
        "ppo_config_minibatch_size": 256,
    }
    with pytest.raises(UserError, match="ppo_config: minibatch_size=256 is larger"):
        learner_config(values)
