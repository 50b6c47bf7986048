"""Config sections of a run: budget, workload, warm start, saving, judging."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import field_validator, model_validator

from ppo_scheduler.config.path_variables import ROOT_VARIABLES, VARIABLES, checked
from ppo_scheduler.config.section import Section, key

Heuristic = Literal[
    "random",
    "round_robin",
    "lor",
    "least_outstanding",
    "power_of_two",
    "least_tokens",
    "least_kv",
    "vllm_dp",
    "min_predicted_latency",
    "oracle_work",
    "always_first",
]

HEURISTICS: tuple[Heuristic, ...] = get_args(Heuristic)
"""Every heuristic that can be named for the comparison."""

Teacher = Literal[
    "least_outstanding",
    "power_of_two",
    "least_tokens",
    "least_kv",
    "vllm_dp",
    "min_predicted_latency",
    "oracle_work",
]


class TrainingSection(Section):
    """Seed and budget."""

    exp_name: str = key(
        "ppo_warmstart",
        "name of the experiment; `${exp_name}` in the paths of the config stands for it",
        pattern=r"^\w[\w.+-]*$",
    )
    seed: int = key(0, "the only seed: every random stream is spawned from it", ge=0, lt=2**63)
    total_requests: int = key(4_000_000, "routing decisions to train on", unit="requests", ge=1)
    episode_requests: int = key(
        2000, "requests per simulation; an episode ends when all are served", unit="requests", ge=2
    )
    output_root: str = key(
        "./outputs", "folder of all results; runs get their own folder below it", min_length=1
    )
    torch_threads: int = key(1, "threads of torch; more than 1 rarely pays here", ge=1, le=256)

    @field_validator("output_root")
    @classmethod
    def _variables_are_known(cls, path: str) -> str:
        return checked(path, ROOT_VARIABLES)


class SimulationSection(Section):
    """The simulator's own settings."""

    engine: Literal["compiled", "vidur"] = key(
        "compiled",
        "what simulates demonstrations, training and validation: Vidur itself, or our engine with "
        "its results at hundreds of times its speed; the comparison at the end is judged on Vidur",
    )
    predictor: Literal[
        "analytic",
        "random_forrest",
        "linear_regression",
        "local_random_forrest",
        "local_linear_regression",
    ] = key(
        "analytic",
        "execution times: our roofline, or Vidur's models of its hub's or profile_dir's profiles",
    )
    profile_dir: str | None = key(
        None, "folder of profile CSVs for the local_* predictors", min_length=1
    )

    @model_validator(mode="after")
    def _local_needs_folder(self) -> SimulationSection:
        """`profile_dir` is given with a `local_*` predictor, and only then."""
        if self.predictor.startswith("local_") and self.profile_dir is None:
            raise ValueError(f"predictor={self.predictor!r} needs profile_dir")
        if not self.predictor.startswith("local_") and self.profile_dir is not None:
            raise ValueError(f"profile_dir has no effect with predictor={self.predictor!r}")
        return self


class WorkloadSection(Section):
    """The request stream."""

    source: Literal["synthetic", "trace"] = key("synthetic", "where requests come from")
    qps: float = key(22.0, "synthetic: mean arrival rate", unit="requests/s", gt=0)
    arrival: Literal["poisson", "gamma"] = key("gamma", "synthetic: arrival process")
    burstiness_cv: float = key(
        2.0, "gamma: coefficient of variation of the gaps; 1 is Poisson", gt=0, le=20
    )
    code_fraction: float = key(
        0.2, "synthetic: share of code-completion requests among conversations", ge=0, le=1
    )
    max_tokens: int = key(
        8192, "prompt + output of a request; longer prompts are cut", unit="tokens", ge=16
    )
    trace_file: str | None = key(None, "trace: the file to replay", min_length=1)
    trace_format: Literal["auto", "azure", "splitwise", "burstgpt", "mooncake"] = key(
        "auto", "trace: its format; auto looks at the first line"
    )
    rate_scale: float = key(1.0, "arrival rates are multiplied by this", gt=0)
    holdout_fraction: float = key(
        0.2, "trace: share at its end that is kept for the comparison", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _trace_needs_file(self) -> WorkloadSection:
        """`trace_file` is given with `source` "trace", and only then."""
        if self.source == "trace" and self.trace_file is None:
            raise ValueError("source='trace' needs trace_file")
        if self.source == "synthetic" and self.trace_file is not None:
            raise ValueError("trace_file has no effect with source='synthetic'")
        return self


class WarmstartSection(Section):
    """Demonstrations and behaviour cloning."""

    enabled: bool = key(True, "off: PPO starts from random weights")
    teachers: tuple[Teacher, ...] = key(
        ("min_predicted_latency", "least_tokens"),
        "heuristics to imitate; those whose choice follows from the observation teach best",
        min_length=1,
    )
    load_levels: tuple[float, ...] = key(
        (0.7, 1.0), "arrival rates to demonstrate at, relative to the workload's", min_length=1
    )
    demo_requests: int = key(
        4096, "demonstrated decisions per teacher and load level", unit="requests", ge=16
    )
    epochs: int = key(30, "passes over the demonstrations at most", ge=1)
    patience: int = key(5, "epochs without better held-out loss before stopping", ge=1)
    batch_size: int = key(256, "demonstrations per gradient step", ge=1)
    learning_rate: float = key(1e-3, "AdamW step size of the cloning", gt=0, le=1)
    holdout_fraction: float = key(
        0.15, "share of each teacher's demonstrations that is held out", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _positive_levels(self) -> WarmstartSection:
        """`load_levels` are above 0, `teachers` names each once."""
        if any(level <= 0 for level in self.load_levels):
            raise ValueError(f"load_levels must all be above 0, not {list(self.load_levels)}")
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"teachers names one heuristic twice: {list(self.teachers)}")
        return self


class CheckpointingSection(Section):
    """When and where the full training state is saved, what is kept, and what is continued."""

    enable_checkpoints: bool = key(True, "off: nothing is saved and nothing can be resumed")
    checkpoint_dir: str = key("./outputs/checkpoints", "folder of the checkpoints", min_length=1)
    checkpoint_interval: int = key(1000, "PPO steps between two checkpoints", unit="steps", ge=1)
    checkpoint_interval_s: float | None = key(
        None, "save also when this much time has passed since the last save", unit="s", gt=0
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
        5, "checkpoints kept, older or worse ones are deleted; null keeps all", ge=1
    )
    keep_every: int | None = key(
        None, "checkpoints at multiples of this PPO step are never deleted", unit="steps", ge=1
    )
    validation_freq: int | None = key(
        None, "updates between two validations on workloads of their own", unit="updates", ge=1
    )
    validation_seeds: int = key(1, "workloads per validation", ge=1, le=1000)
    validation_requests: int = key(512, "requests per validation workload", unit="requests", ge=16)
    resume_from_checkpoint: Literal[False] | str = key(
        False, "checkpoint to continue (a path, or latest); `--resume` has the last word"
    )
    fork_from_checkpoint: str | None = key(
        None, "checkpoint that a new run, with a folder of its own, goes on from"
    )
    resume_step: int | None = key(
        None, "continue from this PPO step of `checkpoint_dir`", unit="steps", ge=0
    )
    on_incompatible: Literal["abort", "fresh"] = key(
        "abort",
        "when a checkpoint does not fit this training: stop, or move it aside and start afresh",
    )

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


class ParallelSection(Section):
    """What is done side by side."""

    num_envs: int = key(
        100,
        "simulations that the policy decides for at once; 1 with the engine vidur",
        unit="simulations",
        ge=1,
        le=4096,
    )
    num_workers: int = key(
        2,
        "processes that run the comparison, and collect demonstrations with the engine vidur",
        ge=1,
        le=256,
    )


class EvaluationSection(Section):
    """The comparison at the end."""

    enabled: bool = key(True, "off: training ends without a comparison")
    schedulers: tuple[Heuristic, ...] = key(
        HEURISTICS, "heuristics that PPO is compared with", min_length=1
    )
    baseline: Heuristic = key("least_outstanding", "the heuristic differences are taken to")
    num_seeds: int = key(3, "held-out workloads", ge=1, le=1000)
    requests: int = key(2048, "requests per held-out workload", unit="requests", ge=16)
    warmup_fraction: float = key(
        0.1, "share of each run's first requests that is not counted", ge=0, lt=1
    )
    slo_ttft_s: float = key(1.0, "objective for the time to first token", unit="s", gt=0)
    slo_tbt_s: float = key(0.1, "objective for the mean time between tokens", unit="s", gt=0)
    bootstrap_samples: int = key(500, "resamples behind the confidence intervals", ge=10)

    @model_validator(mode="after")
    def _baseline_runs(self) -> EvaluationSection:
        """`schedulers` names each once and contains `baseline`."""
        if len(set(self.schedulers)) != len(self.schedulers):
            raise ValueError(f"schedulers names one heuristic twice: {list(self.schedulers)}")
        if self.baseline not in self.schedulers:
            raise ValueError(f"baseline={self.baseline!r} must be one of schedulers")
        return self


class MonitoringSection(Section):
    """What is written down while training."""

    tensorboard: bool = key(True, "write TensorBoard events")
    csv: bool = key(True, "write metrics/*.csv")
    wandb: Literal["off", "offline", "online"] = key(
        "off", "also log to Weights & Biases; offline writes below the run folder only"
    )
    wandb_project: str = key("ppo-scheduler", "Weights & Biases project", min_length=1)
    progress_bar: bool = key(True, "show a progress bar on a terminal")
    log_level: Literal["debug", "info", "warning", "error"] = key(
        "info", "what ppo_training.log and the terminal hold"
    )
    tail_window: int = key(
        1000, "completed requests behind the tail latencies", unit="requests", ge=10
    )
    tail_alert_s: float = key(
        60.0, "a p99 latency above this is logged as a warning", unit="s", gt=0
    )
