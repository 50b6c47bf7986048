"""Every learner key goes through Vidur's own flag parser and arrives unchanged."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from ppo_scheduler.config.learner_sections import CurriculumStage
from vidur_ext.config.fields import choices, leaf_fields
from vidur_ext.config.sections import ClusterSection, EvaluationSection, ParallelSection
from vidur_ext.config.training_config import RouterConfig, TrainingConfig
from vidur_ext.vidur.flags import cli_flags, parse_simulation_config
from vidur_ext.vidur.learner_flags import learner_config

OTHERS = {int: 7, float: 0.7, str: "moved"}
DIVIDED_BY_THE_HEADS = {"actor_critic_architecture.hidden_size": 40}
EXCLUDED_BY_ANOTHER = ("checkpointing.resume_step", "checkpointing.fork_from_checkpoint")
STAGES = (CurriculumStage(until_requests=9), CurriculumStage(until_requests=12, qps_scale=0.5))


def other_than_default(field: FieldInfo) -> Any:
    """Return an allowed value that is not the key's default."""
    default = field.default
    if type(None) in typing.get_args(field.annotation) and default is None:
        return next(OTHERS[part] for part in typing.get_args(field.annotation))
    if choices(field.annotation):
        return next(value for value in choices(field.annotation) if value != default)
    if field.annotation is bool:
        return not default
    if isinstance(default, int) and not isinstance(default, bool):
        return default + 1
    if isinstance(default, float):
        return default * 0.9 or 0.25
    if default == ():
        return ("moved",) if typing.get_args(field.annotation)[0] is str else STAGES
    return "moved"


def everything_changed() -> RouterConfig:
    tree: dict[str, dict[str, Any]] = {}
    for path, field in leaf_fields(RouterConfig):
        group, name = path.split(".")
        if path not in EXCLUDED_BY_ANOTHER:
            other = DIVIDED_BY_THE_HEADS.get(path) or other_than_default(field)
            tree.setdefault(group, {})[name] = other
    return RouterConfig.model_validate(tree)


def learners_part(config: TrainingConfig) -> RouterConfig:
    return RouterConfig(**{name: getattr(config, name) for name in RouterConfig.model_fields})


def parsed(config: TrainingConfig, folder: str) -> RouterConfig:
    flags = cli_flags(config, "ppo_modular", metrics_dir=folder)
    scheduler = parse_simulation_config(flags).cluster_config.global_scheduler_config
    return learner_config(vars(scheduler))


def test_every_changed_key_arrives(tmp_path) -> None:
    learner = everything_changed()
    for path, field in leaf_fields(RouterConfig):
        group, name = path.split(".")
        changed = getattr(getattr(learner, group), name) != field.default
        assert changed == (path not in EXCLUDED_BY_ANOTHER), path
    config = TrainingConfig(
        parallel_training=ParallelSection(num_envs=1),
        evaluation=EvaluationSection(enabled=False),  # planners see no late signals
        cluster=ClusterSection(replica_scheduler="vllm_v1"),  # it has caches to be known
        **{group: getattr(learner, group) for group in type(learner).model_fields},
    )
    assert parsed(config, str(tmp_path)) == learner


def test_absent_values_arrive_as_absent(tmp_path) -> None:
    tree = {"ppo_config": {"target_kl": None, "value_clip": None}}
    config = TrainingConfig.model_validate(tree)
    assert parsed(config, str(tmp_path)) == learners_part(config)


@pytest.mark.parametrize("path", EXCLUDED_BY_ANOTHER)
def test_keys_that_exclude_each_other_arrive_one_by_one(tmp_path, path) -> None:
    group, name = path.split(".")
    value = other_than_default(dict(leaf_fields(RouterConfig))[path])
    config = TrainingConfig.model_validate({group: {name: value}})
    assert parsed(config, str(tmp_path)) == learners_part(config)
