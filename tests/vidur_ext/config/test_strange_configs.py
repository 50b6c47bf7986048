"""Whatever a config file holds, it is a config or a problem in words that any terminal can show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.training_config import TrainingConfig

FULL = TrainingConfig().model_dump(mode="json")
KEYS = [(group, name) for group, keys in FULL.items() for name in keys]
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([10**30, -1, 0, 1e-300, 1e300, float("nan"), float("inf")]),
        st.floats(),
        st.text(max_size=6),
    ),
    lambda child: st.one_of(
        st.lists(child, max_size=3), st.dictionaries(st.text(max_size=6), child, max_size=3)
    ),
    max_leaves=6,
)
ANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def check(path, *overrides: str) -> None:
    problem = None
    try:
        config = load_config(path, overrides)
    except UserError as error:
        problem = str(error)
    if problem is None:
        assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    else:
        assert problem.replace("\n", "").isprintable()


@ANY
@given(keys=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key(write, keys, value):
    group, name = keys
    check(write(json.dumps({group: {**FULL[group], name: value}})))


@ANY
@given(tree=st.dictionaries(st.one_of(st.text(max_size=5), st.sampled_from(list(FULL))), VALUES))
def test_any_tree(write, tree):
    check(write(json.dumps(tree)))


@ANY
@given(keys=st.sampled_from(KEYS), value=VALUES)
def test_any_override(keys, value):
    check(None, f"{'.'.join(keys)}={json.dumps(value)}")


@ANY
@given(text=st.text(max_size=30))
def test_any_text_as_override(text):
    check(None, text)


TEXT = json.dumps(FULL)


@ANY
@given(place=st.integers(0, len(TEXT) - 1), strange=st.text(max_size=4), cut=st.booleans())
def test_any_damage_to_a_file(write, place, strange, cut):
    rest = "" if cut else TEXT[place + len(strange) :]
    try:
        text = TEXT[:place] + strange + rest
        text.encode()
    except UnicodeEncodeError:
        return
    check(write(text))


@pytest.mark.parametrize("depth", [90, 900, 5000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_any_depth(write, depth, brackets):
    opening = brackets[0] if brackets == "[]" else '{"a":'
    nested = opening * depth + "1" + brackets[1] * depth
    with pytest.raises(UserError):
        load_config(write('{"training": ' + nested + "}"))


def test_an_object_without_end(write):
    text: Any = "1"
    for _ in range(200):
        text = '{"training":' + text + "}"
    with pytest.raises(UserError):
        load_config(write(text))
