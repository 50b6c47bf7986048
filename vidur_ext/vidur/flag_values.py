"""Config values as the simulator's flat flags carry them.

A key whose type is no plain int, float, bool or text travels as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from ppo_scheduler.config.learner_sections import LearnerConfig
from ppo_scheduler.config.section import Section
from ppo_scheduler.errors import UserError
from vidur_ext.config.fields import Location, choices, leaf_fields
from vidur_ext.config.problems import describe_problems, join_problems
from vidur_ext.config.training_config import TrainingConfig

SCHEDULER_FLAG_PREFIX = "p_p_o_global_scheduler_modular_config_"


def flag_type(annotation: Any) -> type:
    """Return the type of the flag that carries values of a type."""
    return annotation if annotation in (int, float, bool) else str


def to_flag(value: Any, annotation: Any) -> Any:
    """Return a key's value as its flag carries it."""
    kind = flag_type(annotation)
    if kind is not str or _is_plain_text(annotation):
        return kind(value)
    if isinstance(value, tuple):
        value = [item.model_dump() if isinstance(item, Section) else item for item in value]
    return json.dumps(value)


def from_flag(flat: str, carried: Any, annotation: Any) -> Any:
    """Return what ``to_flag`` was given, as JSON types.

    Raises:
        UserError: the flag should carry JSON and does not.
    """
    if flag_type(annotation) is not str or _is_plain_text(annotation):
        return carried
    try:
        return json.loads(carried)
    except ValueError as error:
        raise UserError(f"--{SCHEDULER_FLAG_PREFIX}{flat} {carried}: not JSON: {error}") from None


def flag_at(location: Location) -> str:
    """Return the flag that brings the value at a location of the learner's config."""
    if len(location) < 2:
        return f"flags --{SCHEDULER_FLAG_PREFIX}*"
    return f"--{SCHEDULER_FLAG_PREFIX}{location[0]}_{location[1]}"


def flag_texts(name: str, value: Any) -> list[str]:
    """Return the command line's words for one flag."""
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def _is_plain_text(annotation: Any) -> bool:
    return annotation is str or bool(choices(annotation))


WORKLOAD_FLAG_PREFIX = "workload_request_generator_config_"
_ORCA_TABLE_TOKENS = 131_072
"""Orca batches whole prompts without a limit; the predictor's tables need one."""


def cluster_flags(replica_scheduler: str) -> dict[str, str]:
    """Return the simulator's flag of each key of ``cluster`` that a replica scheduler obeys."""
    own = {
        "sarathi": {"chunk_size": "sarathi_scheduler_config_chunk_size"},
        "vllm": {"max_tokens_in_batch": "vllm_scheduler_config_max_tokens_in_batch"},
        "orca": {},
    }
    return {
        "num_replicas": "cluster_config_num_replicas",
        "model_name": "replica_config_model_name",
        "device": "replica_config_device",
        "devices": "cluster_config_devices",
        "network_device": "replica_config_network_device",
        "tensor_parallel_size": "replica_config_tensor_parallel_size",
        "num_pipeline_stages": "replica_config_num_pipeline_stages",
        "block_size": "cache_config_block_size",
        "num_blocks": "cache_config_num_blocks",
        "watermark_blocks_fraction": "cache_config_watermark_blocks_fraction",
        "memory_margin_fraction": "cache_config_memory_margin_fraction",
        "replica_scheduler": "replica_scheduler_config_type",
        "batch_size_cap": f"{replica_scheduler}_scheduler_config_batch_size_cap",
        **own[replica_scheduler],
    }


def learner_flags() -> Iterator[tuple[str, type, Any, str]]:
    """Yield (flat name, flag type, flag default, help) of every learner key."""
    for group, name, field in _keys():
        default = to_flag(field.default, field.annotation)
        yield f"{group}_{name}", flag_type(field.annotation), default, field.description or ""


def learner_config(values: Mapping[str, Any]) -> LearnerConfig:
    """Build the learner's config from flat names; the inverse of ``learner_values``.

    Raises:
        UserError: naming every flag whose value is not allowed.
    """
    tree: dict[str, dict[str, Any]] = {}
    for group, name, field in _keys():
        flat = f"{group}_{name}"
        tree.setdefault(group, {})[name] = from_flag(flat, values[flat], field.annotation)
    try:
        return LearnerConfig.model_validate_json(json.dumps(tree)).with_paths()
    except ValidationError as error:
        lines = describe_problems(error, LearnerConfig, flag_at)
        raise UserError(join_problems(lines)) from None


def learner_values(config: LearnerConfig) -> dict[str, Any]:
    """Return every learner key under its flat name, as ``learner_flags`` types it."""
    return {
        f"{group}_{name}": to_flag(getattr(getattr(config, group), name), field.annotation)
        for group, name, field in _keys()
    }


def _keys() -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield (group, key, field) of every learner key, in the order of declaration."""
    for path, field in leaf_fields(LearnerConfig):
        group, name = path.split(".")
        yield group, name, field


def cli_flags(
    config: TrainingConfig,
    scheduler: str,
    *,
    metrics_dir: str,
    run_dir: str | None = None,
    pretrained_actor: str | None = None,
    load_checkpoint: str | None = None,
    stop_at_requests: int | None = None,
) -> list[str]:
    """Return the flags of ``python -m vidur_ext.main`` for one scheduler.

    Args:
        scheduler: type name of the global scheduler, e.g. ``ppo_modular``.
        metrics_dir: folder below which Vidur creates its own output folder.
        run_dir: ``ppo_modular`` only: folder of log, TensorBoard events and metrics.
        pretrained_actor: ``ppo_modular`` only: warm-started policy to begin from.
        load_checkpoint: ``ppo_modular`` only: checkpoint to resume from.
        stop_at_requests: ``ppo_modular`` only: end behind this request of the stream, to be
            resumed; None trains to ``training.total_requests``.
    """
    values = {
        **_cluster_values(config),
        **_predictor_values(config),
        **_workload_values(config),
        "global_scheduler_config_type": scheduler,
        "seed": config.training.seed % 2**32,
        "log_level": config.monitoring.log_level,
        "metrics_config_output_dir": metrics_dir,
        "metrics_config_write_metrics": False,
        "metrics_config_enable_chrome_trace": False,
    }
    if scheduler == "ppo_modular":
        learner = {
            **learner_values(config),
            "engine": config.simulation.engine,
            "num_envs": config.parallel_training.num_envs,
            "run_dir": run_dir,
            "pretrained_actor": pretrained_actor,
            "load_checkpoint": load_checkpoint,
            "stop_at_requests": stop_at_requests,
        }
        values.update({SCHEDULER_FLAG_PREFIX + name: value for name, value in learner.items()})
    return [
        text
        for name, value in values.items()
        if value is not None
        for text in flag_texts(name, value)
    ]


def _cluster_values(config: TrainingConfig) -> dict[str, Any]:
    kind = config.cluster.replica_scheduler
    flags = cluster_flags(kind)
    values = {flag: getattr(config.cluster, name) for name, flag in flags.items()}
    if config.cluster.devices is not None:
        values[flags["devices"]] = ",".join(config.cluster.devices)
    return values


def _predictor_values(config: TrainingConfig) -> dict[str, Any]:
    kind = config.simulation.predictor
    prefix = f"{kind}_execution_time_predictor_config"
    flags: dict[str, Any] = {
        "execution_time_predictor_config_type": kind,
        f"{prefix}_prediction_max_batch_size": config.cluster.batch_size_cap,
        f"{prefix}_prediction_max_tokens_per_request": config.workload.max_tokens,
        f"{prefix}_prediction_max_prefill_chunk_size": _largest_prefill(config),
    }
    if config.simulation.profile_dir is not None:
        flags[f"{prefix}_profile_dir"] = config.simulation.profile_dir
    return flags


def _largest_prefill(config: TrainingConfig) -> int:
    """Return the most prompt tokens that one batch can hold under the replica scheduler."""
    cluster = config.cluster
    if cluster.replica_scheduler == "sarathi":
        return cluster.chunk_size
    if cluster.replica_scheduler == "vllm":
        return cluster.max_tokens_in_batch
    return min(cluster.batch_size_cap * config.workload.max_tokens, _ORCA_TABLE_TOKENS)


def _workload_values(config: TrainingConfig) -> dict[str, Any]:
    workload = config.workload.model_dump(exclude_none=True)
    return {
        "request_generator_config_type": "stream",
        **{WORKLOAD_FLAG_PREFIX + name: value for name, value in workload.items()},
        WORKLOAD_FLAG_PREFIX + "seed": config.training.seed,
        WORKLOAD_FLAG_PREFIX + "num_requests": config.training.total_requests,
    }
