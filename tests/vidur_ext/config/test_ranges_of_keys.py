"""Every number has a range, every text can be printed, whatever a key lists or bounds is said."""

from __future__ import annotations

import json
import typing

import pytest

from ppo_scheduler.config.learner_sections import CurriculumStage
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.loading import load_config
from vidur_ext.config.problems import CALLED_ELSEWHERE
from vidur_ext.config.training_config import TrainingConfig

KEYS = dict([*leaf_fields(TrainingConfig), *leaf_fields(CurriculumStage, "stage.")])


def types_of(path: str) -> set[typing.Any]:
    annotation = KEYS[path].annotation
    return {annotation, *typing.get_args(annotation)}


NUMBERS = [path for path in KEYS if types_of(path) & {int, float}]
LISTS = {"workload.rate_profile", "warmstart.load_levels"}
TEXTS = [path for path in KEYS if str in types_of(path)]


@pytest.mark.parametrize("path", sorted(set(NUMBERS) - LISTS))
def test_a_number_has_a_least_and_a_largest_value(path):
    names = {type(one).__name__.lower() for one in KEYS[path].metadata}
    assert names & {"ge", "gt"}
    assert names & {"le", "lt"}


@pytest.mark.parametrize("value", [1e-300, 1e300, -1.0, 1e9])
@pytest.mark.parametrize("path", sorted(LISTS))
def test_lists_of_numbers_have_ranges_too(complaint, path, value):
    group, name = path.split(".")
    assert f"{name} must" in complaint({group: {name: [1.0, value]}})


@pytest.mark.parametrize("text", ["a\0b", "a\x1b[31mb", "a\nb", "a\u202eb"])
@pytest.mark.parametrize("path", TEXTS)
def test_a_text_that_cannot_be_printed_is_refused(complaint, path, text):
    group, name = path.split(".")
    message = complaint({group: {name: text}})
    assert message.startswith(f"my.json: {group}")
    assert message.isprintable()


def test_a_key_with_escapes_does_not_reach_the_terminal(complaint):
    message = complaint({"trai\x1b]0;owned\x07ning": {"seed": 1}, "a\x9b31m": {"\x1b[2J": 2}})
    assert message.replace("\n", "").isprintable()
    assert "trai\\x1b]0;owned\\x07ning" in message


@pytest.mark.parametrize(
    ("value", "means"), [(True, "latest"), (False, False), ("latest", "latest"), ("a.pt", "a.pt")]
)
def test_what_may_be_resumed(write, value, means):
    config = load_config(write({"checkpointing": {"resume_from_checkpoint": value}}))
    assert config.checkpointing.resume_from_checkpoint == means


@pytest.mark.parametrize("value", [None, 3, 1.5, ["latest"], {"path": "latest"}])
def test_what_no_type_of_several_allows_is_one_problem(complaint, value):
    message = complaint({"checkpointing": {"resume_from_checkpoint": value}})
    assert message.startswith(
        f"my.json: checkpointing.resume_from_checkpoint = {json.dumps(value)}: must be false or "
        "text (checkpoint to continue"
    )
    assert "\n" not in message


@pytest.mark.parametrize(
    ("group", "name", "ours"),
    [
        ("checkpointing", "save_steps", "checkpointing.checkpoint_interval"),
        ("checkpointing", "keep_last", "checkpointing.max_checkpoints"),
        ("training", "lr", "ppo_config.learning_rate"),
    ],
)
def test_keys_of_other_trainers_lead_to_ours(complaint, group, name, ours):
    assert complaint({group: {name: 3}}) == (
        f"my.json: {group}.{name} = 3: unknown key; did you mean {ours}?"
    )


def test_names_of_other_trainers_lead_to_keys_that_exist():
    assert set(CALLED_ELSEWHERE.values()) <= KEYS.keys()
    ours = {path.rpartition(".")[2] for path in KEYS}
    assert not (CALLED_ELSEWHERE.keys() - {"batch_size"}) & ours


def test_a_whole_number_written_as_another_is_spelled_out(complaint):
    text = '{"training": {"total_requests": 4e6}, "checkpointing": {"max_checkpoints": 2.0}}'
    _, *lines = complaint(text).splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == ["write 4000000", "write 2"]


def test_a_choice_is_suggested_whatever_its_case_and_by_its_part(complaint):
    for given in ("meta-llama/llama-3-8b", "Llama-3-8B"):
        message = complaint({"cluster": {"model_name": given}})
        assert message.endswith('did you mean "meta-llama/Llama-3-8B"?')
