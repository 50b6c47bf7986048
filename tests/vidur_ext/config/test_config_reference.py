"""The shipped configs and the reference page say what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppo_scheduler.config.learner_sections import CurriculumStage
from vidur_ext.config.fields import leaf_fields
from vidur_ext.config.loading import dump_config, load_config
from vidur_ext.config.reference import config_reference
from vidur_ext.config.training_config import TrainingConfig

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs").rglob("*.json"))


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert page == config_reference(), (
        "docs/config.md differs from the code; renew it: "
        "vidur-ppo config schema --markdown > docs/config.md"
    )


def test_the_default_file_holds_every_key_with_its_default() -> None:
    text = (ROOT / "configs/ppo_warmstart.json").read_text(encoding="utf-8")
    assert text == dump_config(TrainingConfig()), (
        "configs/ppo_warmstart.json differs from the defaults; renew it: "
        "vidur-ppo config show > configs/ppo_warmstart.json"
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid_and_explained(path) -> None:
    load_config(path)
    assert f"`{path.relative_to(ROOT)}`" in config_reference()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_partial_config_names_only_what_differs_from_the_defaults(path) -> None:
    if path.name == "ppo_warmstart.json":
        return
    defaults = json.loads(dump_config(TrainingConfig()))
    for group, keys in json.loads(path.read_text(encoding="utf-8")).items():
        for name, value in keys.items():
            assert value != defaults[group][name], f"{group}.{name} is the default"


def test_shipped_configs_do_not_share_a_checkpoint_folder() -> None:
    folders = [load_config(path).checkpointing.checkpoint_dir for path in CONFIGS]
    assert len(set(folders)) == len(folders)


def test_every_key_has_a_row_with_its_help() -> None:
    page = config_reference()
    for path, field in [*leaf_fields(TrainingConfig), *leaf_fields(CurriculumStage)]:
        name = path.partition(".")[2] or path
        help_text = (field.description or "").replace("|", "\\|")
        assert any(
            line.startswith(f"| `{name}` |") and line.endswith(f"| {help_text} |")
            for line in page.splitlines()
        ), path


def test_rows_tell_type_range_default_and_unit() -> None:
    lines = config_reference().splitlines()
    assert (
        "| `value_clip` | number or null | >= 1e-06, <= 1e+06 | `0.2` | return std | "
        "gae: clip of the value's move per update, null for none |"
    ) in lines
    assert (
        "| `until_requests` | integer | >= 1, <= 1000000000000 | required | requests | "
        "the stage ends at this many requests |"
    ) in lines


def test_rules_between_keys_are_told() -> None:
    lines = config_reference().splitlines()
    assert "- `attention_heads` divides `hidden_size`." in lines
    assert "- `network_device` is a node of `device`; a device file may stand in any." in lines
    assert "- " not in [line.rstrip("\n") for line in lines]
