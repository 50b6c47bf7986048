"""Config sections of the learner: what it sees, its network, its update, its controls."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from pydantic import field_validator, model_validator
from typing_extensions import Self

from ppo_scheduler.config.section import ROOT_VARIABLES, VARIABLES, Section, checked, expand, key

Kernel = Literal["fused", "torch"]
"""What computes the network."""


class ObservationSection(Section):
    """What the policy sees of the cluster."""

    output_length: Literal["hidden", "oracle"] = key(
        "hidden",
        "whether the true output length is in the observation; 'oracle' runs are marked as such",
    )
    queue_slots: int = key(
        2, "waiting requests described one by one, per replica", unit="requests", ge=0, le=32
    )
    signal_delay_s: float = key(
        0.0,
        "what the policy and every heuristic see of the replicas is so old; what they dispatched "
        "since then they know",
        unit="s",
        ge=0,
        le=60,
    )
    prefix_knowledge: Literal["none", "exact", "approximate"] = key(
        "none",
        "what is known of the replicas' prefix caches: 'exact' is what they report, 'approximate' "
        "an index of what was sent to them; then features tell it, and min_predicted_latency goes "
        "by it",
    )
    kv_event_delay_s: float = key(
        0.0, "exact: what is known of prefix caches is so old", unit="s", ge=0, le=60
    )
    prefix_index_blocks: int = key(
        31_250,
        "approximate: blocks of cluster.block_size remembered of each replica, those that were "
        "sent last",
        unit="blocks",
        ge=1,
        le=10**8,
    )
    history: bool = key(
        True, "add per-replica and global history: deltas, moving averages, trend, variance"
    )
    objective: bool = key(
        False,
        "add lookahead.ttft_weight: one policy then serves clusters that weigh time to first "
        "token differently; see vidur-ppo pretrain --also",
    )
    history_alpha: float = key(
        0.1, "weight of the newest value in the moving averages of the history", gt=0, le=1
    )
    clip: float = key(
        10.0,
        "normalized features are clipped to [-clip, clip]",
        unit="standard deviations",
        ge=0.1,
        le=1e6,
    )

    @property
    def is_late(self) -> bool:
        """Whether anything is seen as it was before."""
        return self.signal_delay_s > 0.0 or self.kv_event_delay_s > 0.0

    @model_validator(mode="after")
    def _only_events_come_late(self) -> ObservationSection:
        """`kv_event_delay_s` above 0 needs `prefix_knowledge` "exact"."""
        if self.kv_event_delay_s and self.prefix_knowledge != "exact":
            raise ValueError(
                f"kv_event_delay_s={self.kv_event_delay_s:g} delays what replicas report, and "
                f'prefix_knowledge="{self.prefix_knowledge}" knows of none: set it to 0, or '
                'prefix_knowledge to "exact"'
            )
        return self


class ArchitectureSection(Section):
    """The permutation-equivariant actor-critic."""

    hidden_size: int = key(32, "width of every layer", unit="units", ge=4, le=1024)
    encoder_layers: int = key(2, "layers of the shared per-replica encoder", ge=1, le=8)
    attention_layers: int = key(
        0,
        "cross-replica attention layers; 0 scores each replica by its own features, among them "
        "its distance to the best one",
        ge=0,
        le=8,
    )
    attention_heads: int = key(4, "heads per attention layer; divides hidden_size", ge=1, le=16)
    activation: Literal["tanh", "relu", "silu"] = key("silu", "activation function")
    orthogonal_init: bool = key(
        True, "orthogonal weights (gain 0.01 at the actor head); otherwise torch's default"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> ArchitectureSection:
        """`attention_heads` divides `hidden_size`."""
        if self.hidden_size % self.attention_heads:
            raise ValueError(
                f"attention_heads={self.attention_heads} must divide hidden_size={self.hidden_size}"
            )
        return self


class PPOSection(Section):
    """Clipped PPO (Schulman et al. 2017), on the exact advantages of all choices or on generalized
    advantage estimation (Schulman et al. 2016)."""

    advantage: Literal["counterfactual", "gae"] = key(
        "counterfactual",
        "where advantages come from: what every choice costs, simulated from the same state, or "
        "the rewards that followed (gae, which alone needs no engine that can price choices)",
    )
    counterfactual_share: float = key(
        0.125, "counterfactual: share of the decisions whose choices are priced", gt=0, le=1
    )
    advantage_clip: float = key(
        5.0,
        "counterfactual: advantages are clipped to [-advantage_clip, advantage_clip]",
        unit="standard deviations",
        ge=0.01,
        le=1e6,
    )

    rollout_len: int = key(
        16_000,
        "decisions per update, over all environments",
        unit="decisions",
        ge=2,
        le=10**7,
    )
    epochs: int = key(2, "passes over each rollout", ge=1, le=100)
    minibatch_size: int = key(
        1000, "decisions per gradient computation, at most", unit="decisions", ge=1, le=10**7
    )
    learning_rate: float = key(2e-3, "AdamW step size before the schedule", gt=0, le=1)
    weight_decay: float = key(1e-4, "AdamW decoupled weight decay", ge=0, le=1)
    adam_eps: float = key(1e-5, "AdamW denominator constant", ge=1e-12, le=1e-2)
    gae_lambda: float = key(0.95, "gae: lambda, per decision", ge=0, le=1)
    clip_ratio: float = key(0.2, "probability ratios are clipped to 1 +- this", gt=0, lt=1)
    value_clip: float | None = key(
        0.2,
        "gae: clip of the value's move per update, null for none",
        unit="return std",
        ge=1e-6,
        le=1e6,
    )
    value_coef: float = key(0.5, "gae: weight of the value loss", ge=0, le=1e6)
    normalize_advantages: bool = key(
        True, "scale advantages per rollout; those of gae are shifted, too"
    )
    max_grad_norm: float = key(0.5, "gradients are scaled down to this norm", ge=1e-6, le=1e6)
    target_kl: float | None = key(
        0.01,
        "an update stops early when the approximate KL passes 1.5x this; null never",
        ge=1e-9,
        le=1e3,
    )
    critic_warmup_updates: int = key(
        4,
        "gae: first updates that train the value head alone, so a warm-started policy survives",
        ge=0,
        le=10**9,
    )
    entropy_coef_initial: float = key(0.0005, "entropy bonus at step 0", ge=0, le=1e6)
    entropy_coef_final: float = key(0.0, "entropy bonus after the decay", ge=0, le=1e6)
    entropy_decay_steps: int = key(
        500_000, "length of the entropy decay", unit="decisions", ge=1, le=10**12
    )
    entropy_warmup_coef: float = key(
        0.0, "extra entropy bonus at step 0, falling to 0", ge=0, le=1e6
    )
    entropy_warmup_steps: int = key(
        0,
        "length of the entropy warm-up; 0 for none",
        unit="decisions",
        ge=0,
        le=10**12,
    )
    action_balance_coef: float = key(
        0.0,
        "weight of a penalty on uneven mean action probabilities",
        ge=0,
        le=1e6,
    )
    max_nonfinite_steps: int = key(
        10,
        "gradient steps in a row that may be skipped as not finite before training fails",
        ge=1,
        le=10**6,
    )

    @property
    def learned_decisions(self) -> int:
        """Decisions of a rollout that are learned from."""
        share = self.counterfactual_share if self.advantage == "counterfactual" else 1.0
        return int(self.rollout_len * share)

    @model_validator(mode="after")
    def _minibatch_fits(self) -> PPOSection:
        """`minibatch_size` is at most `rollout_len`, with `advantage` "counterfactual" at most
        `counterfactual_share` of it."""
        if self.minibatch_size > self.learned_decisions:
            share = ""
            if self.advantage == "counterfactual":
                share = f" x counterfactual_share={self.counterfactual_share:g}"
            raise ValueError(
                f"minibatch_size={self.minibatch_size} is larger than "
                f"rollout_len={self.rollout_len}{share}: one rollout holds no full minibatch"
            )
        return self


class RewardScalingSection(Section):
    """How the learner takes rewards, whatever is rewarded."""

    normalize: bool = key(
        True, "gae: divide rewards by the running std of the return (never shift)"
    )
    clip: float = key(10.0, "gae: scaled rewards are clipped to [-clip, clip]", ge=0.01, le=1e6)
    horizon_s: float = key(
        10.0,
        "gae: what comes so much later counts 1/e of what comes at once",
        unit="s",
        ge=1e-3,
        le=1e6,
    )


class KLSection(Section):
    """KL to the frozen warm-start policy."""

    initial_coef: float = key(0.2, "weight of KL(policy || reference) at step 0", ge=0, le=1e6)
    final_coef: float = key(0.0, "weight after the decay, kept from then on", ge=0, le=1e6)
    decay_steps: int = key(1_000_000, "length of the decay", unit="decisions", ge=1, le=10**12)


class StabilizationSection(Section):
    """Normalizers collect before learning starts."""

    collect_steps: int = key(
        8000,
        "decisions at the start that only feed the normalizers (after a warm start the reward's "
        "alone)",
        unit="decisions",
        ge=0,
        le=10**12,
    )
    keep_updating: bool = key(
        False, "observation statistics go on moving after collection (or after a warm start)"
    )


class TemperatureSection(Section):
    """Controller of the behavior temperature."""

    enabled: bool = key(False, "off: the temperature is base_temperature for ever")
    base_temperature: float = key(1.0, "temperature without pressure", ge=0.01, le=100)
    min_temperature: float = key(0.5, "lower clamp", ge=0.01, le=100)
    max_temperature: float = key(1.5, "upper clamp; pulses may reach twice this", ge=0.01, le=100)
    target_qps: float = key(
        24.5, "arrival rate without pressure", unit="requests/s", ge=1e-3, le=1e6
    )
    target_latency_s: float = key(6.0, "mean latency without pressure", unit="s", ge=1e-3, le=1e6)
    qps_sensitivity: float = key(0.1, "temperature drop per unit of rate pressure", ge=0, le=1e6)
    latency_sensitivity: float = key(
        0.1, "temperature drop per unit of latency pressure", ge=0, le=1e6
    )
    balance_weight: float = key(0.1, "temperature rise at complete imbalance", ge=0, le=1e6)
    ema_alpha: float = key(0.1, "weight of the newest pressure in its moving average", gt=0, le=1)
    pulse_magnitude: float = key(
        0.5,
        "height of a pulse, relative to base_temperature; 0 for no pulses",
        ge=0,
        le=1e6,
    )
    pulse_steps: int = key(8, "length of a pulse", unit="steps", ge=1, le=10**9)
    stagnation_window: int = key(
        512,
        "a pulse comes when the mean reward of this many steps is no progress over that of as "
        "many before",
        unit="steps",
        ge=2,
        le=10**7,
    )
    stagnation_threshold: float = key(
        0.01,
        "rise of the mean reward, relative to its size, that counts as progress",
        ge=0,
        le=1e6,
    )

    @model_validator(mode="after")
    def _ordered(self) -> TemperatureSection:
        """`min_temperature` <= `base_temperature` <= `max_temperature`."""
        if not self.min_temperature <= self.base_temperature <= self.max_temperature:
            raise ValueError(
                "min_temperature <= base_temperature <= max_temperature must hold, not "
                f"{self.min_temperature}, {self.base_temperature}, {self.max_temperature}"
            )
        return self


class CurriculumStage(Section):
    """One stage of the curriculum."""

    until_requests: int = key(
        ..., "the stage ends at this many requests", unit="requests", ge=1, le=10**12
    )
    qps_scale: float = key(1.0, "arrival rates are multiplied by this", ge=1e-3, le=1e3)
    latency_threshold_scale: float = key(
        1.0,
        "reward_config.latency_threshold_s is multiplied by this",
        ge=1e-3,
        le=1e3,
    )
    penalty_scale: float = key(
        1.0, "reward_config.threshold_penalty is multiplied by this", ge=0, le=1e6
    )


class CurriculumSection(Section):
    """Stages by requests seen; after the last one every scale is 1."""

    enabled: bool = key(False, "off: no stage applies")
    stages: tuple[CurriculumStage, ...] = key((), "the stages, in order of until_requests")

    @model_validator(mode="after")
    def _ascending(self) -> CurriculumSection:
        """`until_requests` ascends from stage to stage; `enabled` needs a stage."""
        ends = [stage.until_requests for stage in self.stages]
        if any(later <= earlier for earlier, later in pairwise(ends)):
            raise ValueError(f"until_requests must ascend from stage to stage, not {ends}")
        if self.enabled and not self.stages:
            raise ValueError("enabled=true needs at least one stage in stages")
        return self


class OptimizationSection(Section):
    """Schedules and batch shaping of the optimizer."""

    lr_schedule: Literal["constant", "linear", "cosine"] = key(
        "linear", "course of the learning rate from warm-up to training.total_requests"
    )
    lr_final_fraction: float = key(
        0.1, "linear, cosine: learning rate at the end, relative to its peak", ge=0, le=1
    )
    lr_warmup_steps: int = key(0, "linear rise from 0", unit="decisions", ge=0, le=10**12)
    accumulation_steps: int = key(
        1, "minibatches whose gradients are averaged per optimizer step", ge=1, le=64
    )
    adaptive_minibatch: bool = key(
        False, "double the minibatch after a KL early stop, halve it after a calm update"
    )
    min_minibatch_size: int = key(1000, "lower bound of the adaptive minibatch", ge=1, le=10**7)
    max_minibatch_size: int = key(16_000, "upper bound of the adaptive minibatch", ge=1, le=10**7)

    @model_validator(mode="after")
    def _ordered(self) -> OptimizationSection:
        """`min_minibatch_size` is at most `max_minibatch_size`."""
        if self.min_minibatch_size > self.max_minibatch_size:
            raise ValueError(
                f"min_minibatch_size={self.min_minibatch_size} is above "
                f"max_minibatch_size={self.max_minibatch_size}"
            )
        return self


class CollapseGuardSection(Section):
    """Watches the action shares and intervenes when one replica takes all."""

    enabled: bool = key(True, "off: shares are logged, nothing is done")
    window: int = key(
        8000, "decisions the shares are taken over", unit="decisions", ge=16, le=10**7
    )
    max_share: float = key(
        0.9, "share of one replica that counts as collapse (with 2 or more replicas)", gt=0, le=1
    )
    entropy_boost: float = key(
        0.05,
        "entropy coefficient during an intervention (if larger than the schedule's)",
        ge=0,
        le=1e6,
    )
    temperature_boost: float = key(
        1.5,
        "factor on the behavior temperature during an intervention",
        ge=1,
        le=100,
    )
    intervention_steps: int = key(
        8000,
        "length of an intervention; its entropy boost reaches at least one update",
        unit="decisions",
        ge=1,
        le=10**12,
    )


class TrainingSection(Section):
    """Seed and budget."""

    exp_name: str = key(
        "ppo_warmstart",
        "name of the experiment; `${exp_name}` in the paths of the config stands for it",
        pattern=r"^\w[\w.+-]*$",
    )
    seed: int = key(0, "the only seed: every random stream is spawned from it", ge=0, lt=2**63)
    total_requests: int = key(
        1_000_000, "routing decisions to train on", unit="requests", ge=1, le=10**12
    )
    episode_requests: int = key(
        2000,
        "requests per simulation; an episode ends when all are served",
        unit="requests",
        ge=2,
        le=10**6,
    )
    output_root: str = key(
        "./outputs", "folder of all results; runs get their own folder below it", min_length=1
    )
    torch_threads: int = key(1, "threads of torch; more than 1 rarely pays here", ge=1, le=256)
    kernel: Kernel = key(
        "fused",
        "what computes the network while it learns: compiled code of this project, all layers in "
        "one go, or torch, which computes networks with attention in any case",
    )

    @field_validator("output_root")
    @classmethod
    def _variables_are_known(cls, path: str) -> str:
        return checked(path, ROOT_VARIABLES)


class CheckpointingSection(Section):
    """When and where the full training state is saved, what is kept, and what is continued."""

    enable_checkpoints: bool = key(True, "off: nothing is saved and nothing can be resumed")
    checkpoint_dir: str = key("./outputs/checkpoints", "folder of the checkpoints", min_length=1)
    checkpoint_interval: int = key(
        960,
        "PPO steps between two checkpoints; whole rollouts let each stop at the same place of one",
        unit="steps",
        ge=1,
        le=10**12,
    )
    checkpoint_every_episodes: int | None = key(
        None,
        "save also after every so many rounds of episodes, which all environments end together",
        unit="episodes",
        ge=1,
        le=10**9,
    )
    checkpoint_interval_s: float | None = key(
        None,
        "save also when this much time has passed since the last save",
        unit="s",
        gt=0,
        le=1e9,
    )
    checkpoint_on_start: bool = key(False, "save before the first decision, as step 0")
    save_async: bool = key(True, "write in the background while the training goes on")
    save_optimizer_state: bool = key(
        True, "off: AdamW starts afresh after a resume, which is then not exact"
    )
    incremental_checkpoints: bool = key(
        True, "keep a rotating series; off keeps the newest checkpoint only"
    )
    checkpoint_strategy: Literal["last_n", "top_k_val"] = key(
        "last_n",
        "keep the newest `max_checkpoints`, or those with the best validation and the newest",
    )
    max_checkpoints: int | None = key(
        5,
        "checkpoints kept, older or worse ones are deleted; null keeps all",
        ge=1,
        le=10**6,
    )
    keep_every: int | None = key(
        None,
        "checkpoints at multiples of this PPO step are never deleted",
        unit="steps",
        ge=1,
        le=10**12,
    )
    validation_freq: int | None = key(
        10,
        "updates between two validations on workloads of their own; the best policy validated is "
        "the one that a training ends with, null: the last one",
        unit="updates",
        ge=1,
        le=10**9,
    )
    validation_seeds: int = key(8, "workloads per validation", ge=1, le=1000)
    validation_requests: int = key(
        1024,
        "requests per validation workload; of a short trace fewer",
        unit="requests",
        ge=16,
        le=10**6,
    )
    resume_from_checkpoint: Literal[False] | str = key(
        False,
        "checkpoint to continue (a path, or latest, which true means as well); `--resume` has the "
        "last word",
    )
    fork_from_checkpoint: str | None = key(
        None, "checkpoint that a new run, with a folder of its own, goes on from"
    )
    resume_step: int | None = key(
        None,
        "continue from this PPO step of `checkpoint_dir`",
        unit="steps",
        ge=0,
        le=10**12,
    )
    on_incompatible: Literal["abort", "fresh"] = key(
        "abort",
        "when a checkpoint does not fit this training: stop, or move it aside and start afresh",
    )

    @field_validator("resume_from_checkpoint", mode="before")
    @classmethod
    def _true_means_latest(cls, value: object) -> object:
        return "latest" if value is True else value

    @field_validator("checkpoint_dir", "resume_from_checkpoint", "fork_from_checkpoint")
    @classmethod
    def _variables_are_known(cls, path: str | Literal[False] | None) -> object:
        return checked(path, VARIABLES) if isinstance(path, str) else path

    @model_validator(mode="after")
    def _validation_is_on_where_it_decides(self) -> CheckpointingSection:
        """`checkpoint_strategy` "top_k_val" needs `validation_freq`."""
        if self.checkpoint_strategy == "top_k_val" and self.validation_freq is None:
            raise ValueError(
                'checkpoint_strategy="top_k_val" keeps the best by validation, and '
                "validation_freq is null: set it, or choose last_n"
            )
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> CheckpointingSection:
        """At most one of `resume_from_checkpoint`, `resume_step` and `fork_from_checkpoint` is
        set."""
        origins = {
            "resume_from_checkpoint": self.resume_from_checkpoint or None,
            "resume_step": self.resume_step,
            "fork_from_checkpoint": self.fork_from_checkpoint,
        }
        given = [f"{name}={value!r}" for name, value in origins.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} each name where to go on from: set one")
        return self


class MonitoringSection(Section):
    """What is written down while training."""

    tensorboard: bool = key(True, "write TensorBoard events")
    csv: bool = key(True, "write metrics/*.csv")
    wandb: Literal["off", "offline", "online"] = key(
        "off", "also log to Weights & Biases; offline writes below the run folder only"
    )
    wandb_project: str = key("ppo-scheduler", "Weights & Biases project", min_length=1)
    wandb_name: str | None = key(
        None, "name of the W&B run; null: `training.exp_name`", min_length=1
    )
    wandb_group: str | None = key(
        None, "group of the W&B run, as of all seeds of an experiment", min_length=1
    )
    wandb_tags: tuple[str, ...] = key((), "tags of the W&B run")
    wandb_id: str | None = key(
        None,
        "id of the W&B run: a new training continues the run that has it; null: a new one, and a "
        "resume that of its checkpoint",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
    )
    progress_bar: bool = key(True, "show a progress bar on a terminal")
    log_level: Literal["debug", "info", "warning", "error"] = key(
        "info", "what ppo_training.log and the terminal hold"
    )
    tail_window: int = key(
        1000,
        "completed requests that the tail latencies are of",
        unit="requests",
        ge=10,
        le=10**7,
    )
    tail_alert_s: float = key(
        60.0,
        "a p99 latency above this is logged as a warning",
        unit="s",
        gt=0,
        le=1e9,
    )


class LearnerConfig(Section):
    """Everything the learner needs, whatever simulates the cluster."""

    training: TrainingSection = key(TrainingSection(), "seed and budget")
    observation: ObservationSection = key(ObservationSection(), "what the policy sees")
    actor_critic_architecture: ArchitectureSection = key(ArchitectureSection(), "the network")
    ppo_config: PPOSection = key(PPOSection(), "clipped PPO")
    reward_config: RewardScalingSection = key(RewardScalingSection(), "the scale of rewards")
    kl_regularization: KLSection = key(KLSection(), "KL to the warm-start policy")
    statistics_stabilization: StabilizationSection = key(
        StabilizationSection(), "normalizers collect before learning starts"
    )
    temperature_control: TemperatureSection = key(
        TemperatureSection(), "controller of the behavior temperature"
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
