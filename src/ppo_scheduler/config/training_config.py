"""The whole configuration, and its translation into the simulator's flat flags.

``TrainingConfig`` is one JSON file. ``to_cli_flags`` turns it into the flags of
``python -m vidur_ext.main``; the learner's groups travel as
``--p_p_o_global_scheduler_modular_config_<group>_<key>`` and come back on the other side through
``LearnerConfig.from_flat``.
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ppo_scheduler.config.learner_sections import (
    ArchitectureSection,
    CollapseGuardSection,
    CurriculumSection,
    KLSection,
    ObservationSection,
    OptimizationSection,
    PPOSection,
    RewardSection,
    StabilizationSection,
    TemperatureSection,
)
from ppo_scheduler.config.run_sections import (
    CheckpointingSection,
    ClusterSection,
    EvaluationSection,
    MonitoringSection,
    ParallelSection,
    SimulationSection,
    TrainingSection,
    WarmstartSection,
    WorkloadSection,
)
from ppo_scheduler.config.section import Section, key

SCHEDULER_FLAG_PREFIX = "p_p_o_global_scheduler_modular_config_"
WORKLOAD_FLAG_PREFIX = "workload_request_generator_config_"
_ORCA_TABLE_TOKENS = 262_144
"""Orca batches whole prompts without a limit; the predictor's tables need one."""


class LearnerConfig(Section):
    """Everything the learner needs, whatever simulates the cluster."""

    training: TrainingSection = key(TrainingSection(), "seed and budget")
    observation: ObservationSection = key(ObservationSection(), "what the policy sees")
    actor_critic_architecture: ArchitectureSection = key(ArchitectureSection(), "the network")
    ppo_config: PPOSection = key(PPOSection(), "clipped PPO")
    reward_config: RewardSection = key(RewardSection(), "what is rewarded")
    kl_regularization: KLSection = key(KLSection(), "KL to the warm-start policy")
    statistics_stabilization: StabilizationSection = key(
        StabilizationSection(), "normalizers collect before learning starts"
    )
    temperature_control: TemperatureSection = key(
        TemperatureSection(), "controller of the behaviour temperature"
    )
    curriculum_learning: CurriculumSection = key(CurriculumSection(), "stages by requests seen")
    advanced_optimization: OptimizationSection = key(
        OptimizationSection(), "learning-rate schedule, minibatches, accumulation"
    )
    collapse_guard: CollapseGuardSection = key(
        CollapseGuardSection(), "intervenes when one replica takes all"
    )
    checkpointing: CheckpointingSection = key(CheckpointingSection(), "saving the training state")
    monitoring: MonitoringSection = key(MonitoringSection(), "what is written while training")

    @classmethod
    def flat_fields(cls) -> Iterator[tuple[str, type, Any, str]]:
        """Yield (flat name, flag type, flag default, help) of every learner key.

        A key whose type is no plain int, float, bool or str travels as JSON text.
        """
        for group, group_field in LearnerConfig.model_fields.items():
            section: Section = group_field.default
            for name, field in type(section).model_fields.items():
                flag_type = _flag_type(field.annotation)
                default = _to_flag(getattr(section, name), flag_type)
                yield f"{group}_{name}", flag_type, default, field.description or ""

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> LearnerConfig:
        """Build the learner's config from flat names; the inverse of ``flat_values``."""
        tree: dict[str, dict[str, Any]] = {}
        for group, group_field in LearnerConfig.model_fields.items():
            section: Section = group_field.default
            tree[group] = {}
            for name, field in type(section).model_fields.items():
                value = values[f"{group}_{name}"]
                if _flag_type(field.annotation) is str and not _is_text(field.annotation):
                    value = json.loads(value)
                tree[group][name] = value
        return LearnerConfig.model_validate_json(json.dumps(tree))

    def flat_values(self) -> dict[str, Any]:
        """Return every learner key under its flat name, as ``flat_fields`` types it."""
        return {
            flat: _to_flag(_value_at(self, flat), flag_type)
            for flat, flag_type, _, _ in self.flat_fields()
        }


class TrainingConfig(LearnerConfig):
    """One JSON file: the learner's groups and those of the run around it."""

    cluster: ClusterSection = key(ClusterSection(), "the served cluster")
    simulation: SimulationSection = key(SimulationSection(), "the simulator")
    workload: WorkloadSection = key(WorkloadSection(), "the request stream")
    warmstart: WarmstartSection = key(WarmstartSection(), "demonstrations and cloning")
    parallel_training: ParallelSection = key(ParallelSection(), "work spread over processes")
    evaluation: EvaluationSection = key(EvaluationSection(), "the comparison at the end")

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON text: equal settings, equal digest."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def learner(self) -> LearnerConfig:
        """Return the learner's part."""
        return LearnerConfig(**{name: getattr(self, name) for name in LearnerConfig.model_fields})

    def to_cli_flags(
        self,
        scheduler: str,
        *,
        metrics_dir: str,
        run_dir: str | None = None,
        pretrained_actor: str | None = None,
        load_checkpoint: str | None = None,
    ) -> list[str]:
        """Return the flags of ``python -m vidur_ext.main`` for one scheduler.

        Args:
            scheduler: type name of the global scheduler, e.g. ``ppo_modular``.
            metrics_dir: folder below which Vidur creates its own output folder.
            run_dir: ``ppo_modular`` only: folder of log, TensorBoard events and metrics.
            pretrained_actor: ``ppo_modular`` only: warm-started policy to begin from.
            load_checkpoint: ``ppo_modular`` only: checkpoint to resume from.
        """
        values = {
            **self._cluster_flags(),
            **self._predictor_flags(),
            **self._workload_flags(),
            "global_scheduler_config_type": scheduler,
            "seed": self.training.seed % 2**32,
            "log_level": self.monitoring.log_level,
            "metrics_config_output_dir": metrics_dir,
            "metrics_config_write_metrics": False,
            "metrics_config_enable_chrome_trace": False,
        }
        if scheduler == "ppo_modular":
            learner = {
                **self.flat_values(),
                "run_dir": run_dir,
                "pretrained_actor": pretrained_actor,
                "load_checkpoint": load_checkpoint,
            }
            values.update({SCHEDULER_FLAG_PREFIX + name: value for name, value in learner.items()})
        return [
            text
            for name, value in values.items()
            if value is not None
            for text in _flag_texts(name, value)
        ]

    def _cluster_flags(self) -> dict[str, Any]:
        cluster = self.cluster
        kind = cluster.replica_scheduler
        flags: dict[str, Any] = {
            "cluster_config_num_replicas": cluster.num_replicas,
            "replica_config_model_name": cluster.model_name,
            "replica_config_device": cluster.device,
            "replica_config_network_device": cluster.network_device,
            "replica_config_tensor_parallel_size": cluster.tensor_parallel_size,
            "replica_config_num_pipeline_stages": cluster.num_pipeline_stages,
            "cache_config_block_size": cluster.block_size,
            "cache_config_num_blocks": cluster.num_blocks,
            "cache_config_watermark_blocks_fraction": cluster.watermark_blocks_fraction,
            "cache_config_memory_margin_fraction": cluster.memory_margin_fraction,
            "replica_scheduler_config_type": kind,
            f"{kind}_scheduler_config_batch_size_cap": cluster.batch_size_cap,
        }
        if kind == "sarathi":
            flags["sarathi_scheduler_config_chunk_size"] = cluster.chunk_size
        if kind == "vllm":
            flags["vllm_scheduler_config_max_tokens_in_batch"] = cluster.max_tokens_in_batch
        return flags

    def _predictor_flags(self) -> dict[str, Any]:
        kind = self.simulation.predictor
        prefix = f"{kind}_execution_time_predictor_config"
        flags: dict[str, Any] = {
            "execution_time_predictor_config_type": kind,
            f"{prefix}_prediction_max_batch_size": self.cluster.batch_size_cap,
            f"{prefix}_prediction_max_tokens_per_request": self.workload.max_tokens,
            f"{prefix}_prediction_max_prefill_chunk_size": self._largest_prefill(),
        }
        if self.simulation.profile_dir is not None:
            flags[f"{prefix}_profile_dir"] = self.simulation.profile_dir
        return flags

    def _largest_prefill(self) -> int:
        """Return the most prompt tokens that one batch can hold under the replica scheduler."""
        cluster = self.cluster
        if cluster.replica_scheduler == "sarathi":
            return cluster.chunk_size
        if cluster.replica_scheduler == "vllm":
            return cluster.max_tokens_in_batch
        return min(cluster.batch_size_cap * self.workload.max_tokens, _ORCA_TABLE_TOKENS)

    def _workload_flags(self) -> dict[str, Any]:
        workload = self.workload.model_dump(exclude_none=True)
        return {
            "request_generator_config_type": "stream",
            **{WORKLOAD_FLAG_PREFIX + name: value for name, value in workload.items()},
            WORKLOAD_FLAG_PREFIX + "seed": self.training.seed,
            WORKLOAD_FLAG_PREFIX + "num_requests": self.training.total_requests,
        }


def _value_at(config: LearnerConfig, flat: str) -> Any:
    for group in LearnerConfig.model_fields:
        name = flat.removeprefix(f"{group}_")
        section = getattr(config, group)
        if name != flat and name in type(section).model_fields:
            return getattr(section, name)
    raise AssertionError(f"{flat} names no learner key")


def _flag_type(annotation: Any) -> type:
    return annotation if annotation in (int, float, bool) else str


def _is_text(annotation: Any) -> bool:
    return annotation is str or typing.get_origin(annotation) is typing.Literal


def _to_flag(value: Any, flag_type: type) -> Any:
    if flag_type is not str or isinstance(value, str):
        return flag_type(value)
    if isinstance(value, tuple):
        value = [item.model_dump() if isinstance(item, Section) else item for item in value]
    return json.dumps(value)


def _flag_texts(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]
