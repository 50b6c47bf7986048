"""Files that are no JSON object are refused with the place where that shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config, read_json_object


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "my.json, line 1, column 1: not JSON: Expecting value"),
        ('{"training": {}}\n}', "my.json, line 2, column 1: not JSON: Extra data"),
        ('{\n  "training": {"seed" 1}\n}', "my.json, line 2, column 23: not JSON: Expecting ':'"),
        ("[1]", 'my.json: expected an object of groups, {"training": {...}, ...}'),
        ("[" * 100_000, "my.json: not JSON that can be read: maximum recursion depth"),
        ('{"training": {"seed": ' + "9" * 5000 + "}}", "my.json: not JSON that can be read"),
    ],
)
def test_text_that_is_no_json_object_is_refused_with_its_place(complaint, text, expected) -> None:
    assert complaint(text).startswith(expected)


def test_a_key_that_stands_twice_is_named_with_both_places(complaint) -> None:
    text = '{\n  "training": {"seed": 1,\n    "output_root": "a{\\"seed\\": 3",\n    "seed": 2}\n}'
    assert complaint(text) == (
        'my.json, line 4, column 5: the key "seed" stands in this object already '
        "(line 2, column 16); remove one of them"
    )


def test_a_key_written_with_an_escape_is_the_same_key(complaint) -> None:
    assert 'line 1, column 16: the key "seed"' in complaint('{"seed": 1,    "\\u0073eed": 2}')


def test_the_same_key_in_two_objects_is_no_repetition(write) -> None:
    config = load_config(write({"warmstart": {"epochs": 2}, "ppo_config": {"epochs": 3}}))
    assert (config.warmstart.epochs, config.ppo_config.epochs) == (2, 3)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"absent\.json: cannot read the config \(No such file"):
        load_config(tmp_path / "absent.json")


def test_bytes_that_are_no_utf8_are_named_by_their_place(tmp_path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('{"é"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.json: byte 2 is not UTF-8"):
        load_config(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path) -> None:
    path = tmp_path / "windows.json"
    path.write_bytes(b'\xef\xbb\xbf{"training": {"seed": 5}}')
    assert load_config(path).training.seed == 5


def test_half_a_character_is_refused(complaint) -> None:
    text = '{"training": {"output_root": "\\ud83d"}}'
    assert complaint(text) == "my.json: '\\ud83d' is half of a character; write all of it"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)


@given(tree=st.dictionaries(st.text(max_size=4), _JSON), indent=st.sampled_from([None, 2]))
def test_every_json_object_without_repetition_is_read_as_it_is(
    tmp_path_factory, tree, indent
) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(tree, indent=indent), encoding="utf-8")
    assert read_json_object(path) == tree
