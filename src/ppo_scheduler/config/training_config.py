"""The whole configuration, and its translation into the simulator's flat flags.

``TrainingConfig`` is one JSON file. ``to_cli_flags`` turns it into the flags of
``python -m vidur_ext.main``; the learner's groups travel as
``--p_p_o_global_scheduler_modular_config_<group>_<key>`` and come back on the other side through
``LearnerConfig.from_flat``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from typing_extensions import Self

from ppo_scheduler.config.cluster_section import ClusterSection
from ppo_scheduler.config.environments import misfit
from ppo_scheduler.config.fields import leaf_fields
from ppo_scheduler.config.flat_values import (
    SCHEDULER_FLAG_PREFIX,
    flag_at,
    flag_texts,
    flag_type,
    from_flag,
    to_flag,
)
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
from ppo_scheduler.config.path_variables import expand
from ppo_scheduler.config.problems import describe_problems, join_problems
from ppo_scheduler.config.run_sections import (
    CheckpointingSection,
    EvaluationSection,
    MonitoringSection,
    ParallelSection,
    SimulationSection,
    TrainingSection,
    WarmstartSection,
    WorkloadSection,
)
from ppo_scheduler.config.section import Section, key
from ppo_scheduler.errors import UserError

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

    @model_validator(mode="after")
    def _minibatch_adapts_within_bounds(self) -> Self:
        """With `advanced_optimization.adaptive_minibatch`, `ppo_config.minibatch_size` begins
        within `min_minibatch_size` and `max_minibatch_size`."""
        shape, initial = self.advanced_optimization, self.ppo_config.minibatch_size
        low, high = shape.min_minibatch_size, shape.max_minibatch_size
        if shape.adaptive_minibatch and not low <= initial <= high:
            raise ValueError(
                f"ppo_config.minibatch_size={initial} is outside the bounds of the adaptive "
                f"minibatch, advanced_optimization.min_minibatch_size={low} and "
                f"max_minibatch_size={high}; change one of them, or switch adaptive_minibatch off"
            )
        return self

    @classmethod
    def flat_fields(cls) -> Iterator[tuple[str, type, Any, str]]:
        """Yield (flat name, flag type, flag default, help) of every learner key."""
        for group, name, field in cls._keys():
            default = to_flag(field.default, field.annotation)
            yield f"{group}_{name}", flag_type(field.annotation), default, field.description or ""

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> LearnerConfig:
        """Build the learner's config from flat names; the inverse of ``flat_values``.

        Raises:
            UserError: naming every flag whose value is not allowed.
        """
        tree: dict[str, dict[str, Any]] = {}
        for group, name, field in cls._keys():
            flat = f"{group}_{name}"
            tree.setdefault(group, {})[name] = from_flag(flat, values[flat], field.annotation)
        try:
            return LearnerConfig.model_validate_json(json.dumps(tree)).with_paths()
        except ValidationError as error:
            lines = describe_problems(error, LearnerConfig, flag_at)
            raise UserError(join_problems(lines)) from None

    def with_paths(self) -> Self:
        """Return the config with the variables of its paths replaced."""
        training, saving = self.training, self.checkpointing
        values: dict[str, object] = {"exp_name": training.exp_name, "seed": training.seed}
        root = expand(training.output_root, values)
        values["output_root"] = root
        paths = {
            name: expand(path, values)
            for name in ("checkpoint_dir", "resume_from_checkpoint", "fork_from_checkpoint")
            if isinstance(path := getattr(saving, name), str)
        }
        return self.model_copy(
            update={
                "training": training.model_copy(update={"output_root": root}),
                "checkpointing": saving.model_copy(update=paths),
            }
        )

    def settings(self) -> dict[str, Any]:
        """Return every key by its dotted name, with JSON values."""
        tree = self.model_dump(mode="json")
        return {
            f"{group}.{name}": value for group, keys in tree.items() for name, value in keys.items()
        }

    def flat_values(self) -> dict[str, Any]:
        """Return every learner key under its flat name, as ``flat_fields`` types it."""
        return {
            f"{group}_{name}": to_flag(getattr(getattr(self, group), name), field.annotation)
            for group, name, field in self._keys()
        }

    @staticmethod
    def _keys() -> Iterator[tuple[str, str, FieldInfo]]:
        """Yield (group, key, field) of every learner key, in the order of declaration."""
        for path, field in leaf_fields(LearnerConfig):
            group, name = path.split(".")
            yield group, name, field


class TrainingConfig(LearnerConfig):
    """One JSON file: the learner's groups and those of the run around it."""

    cluster: ClusterSection = key(ClusterSection(), "the served cluster")
    simulation: SimulationSection = key(SimulationSection(), "the simulator")
    workload: WorkloadSection = key(WorkloadSection(), "the request stream")
    warmstart: WarmstartSection = key(WarmstartSection(), "demonstrations and cloning")
    parallel_training: ParallelSection = key(ParallelSection(), "work spread over processes")
    evaluation: EvaluationSection = key(EvaluationSection(), "the comparison at the end")

    @model_validator(mode="after")
    def _teachers_can_be_followed(self) -> Self:
        """`warmstart.teachers` contains `oracle_work` only if `observation.output_length` is
        "oracle": what the policy does not see it cannot imitate."""
        hidden = self.observation.output_length == "hidden"
        if self.warmstart.enabled and hidden and "oracle_work" in self.warmstart.teachers:
            raise ValueError(
                "warmstart.teachers contains oracle_work, whose choice follows from true output "
                'lengths, but observation.output_length is "hidden"; choose another teacher, or '
                'observation.output_length "oracle"'
            )
        return self

    @model_validator(mode="after")
    def _environments_fit(self) -> Self:
        """`parallel_training.num_envs` divides `ppo_config.rollout_len` and
        `training.total_requests`; it is 1 with `simulation.engine` "vidur"."""
        problem = misfit(
            self.simulation.engine,
            self.parallel_training.num_envs,
            self.ppo_config.rollout_len,
            self.training.total_requests,
        )
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _predictor_knows_the_devices(self) -> Self:
        """`cluster.devices` needs `simulation.predictor` "analytic": profiles are one device's."""
        predictor = self.simulation.predictor
        if self.cluster.devices is not None and predictor != "analytic":
            raise ValueError(
                f'cluster.devices needs simulation.predictor "analytic", not "{predictor}": '
                "change it, or set cluster.devices to null"
            )
        return self

    @model_validator(mode="after")
    def _engine_simulates_the_cluster(self) -> Self:
        """`simulation.engine` "compiled" needs `simulation.predictor` "analytic" and
        `cluster.num_pipeline_stages` 1."""
        if self.simulation.engine == "vidur":
            return self
        for name, value, only in (
            ("simulation.predictor", self.simulation.predictor, "analytic"),
            ("cluster.num_pipeline_stages", self.cluster.num_pipeline_stages, 1),
        ):
            if value != only:
                raise ValueError(
                    f'simulation.engine="compiled" simulates {name}={only!r} only, not {value!r}: '
                    'change it, or set simulation.engine to "vidur" and '
                    "parallel_training.num_envs to 1"
                )
        return self

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
                "engine": self.simulation.engine,
                "num_envs": self.parallel_training.num_envs,
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

    def _cluster_flags(self) -> dict[str, Any]:
        kind = self.cluster.replica_scheduler
        flags = cluster_flags(kind)
        values = {flag: getattr(self.cluster, name) for name, flag in flags.items()}
        if self.cluster.devices is not None:
            values[flags["devices"]] = ",".join(self.cluster.devices)
        return values

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
