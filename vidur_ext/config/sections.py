"""Config sections of a run around the learner: cluster, simulator, workload, warm start,
comparison.
"""

from __future__ import annotations

import json
import typing
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator, model_validator

from ppo_scheduler.config import learner_sections
from ppo_scheduler.config.section import Section, at_home, key
from vidur_ext.config.names import named_or_file
from vidur_ext.config.plugins import data_files, marked, module_names

MODELS = data_files("vidur_ext.execution_time", "models")
"""Models that need no file of the user's, and where theirs lies."""

DEVICE_NAMES = tuple(data_files("vidur_ext.execution_time", "devices"))
"""Devices that need no file of the user's."""

NodeName = Literal[
    "a40_pairwise_nvlink",
    "a100_pairwise_nvlink",
    "a100_dgx",
    "h100_pairwise_nvlink",
    "h100_dgx",
    "h200_dgx",
    "b200_dgx",
    "l40_pcie",
    "l40s_pcie",
    "rtx_4090_pcie",
    "rtx_pro_6000_pcie",
]


class ClusterSection(Section):
    """The served cluster, in Vidur's terms."""

    num_replicas: int = key(4, "model replicas to route to", ge=1, le=1024)
    model_name: str = key(
        "meta-llama/Llama-3-8B",
        f"the model every replica serves: {', '.join(MODELS)}, or a model file (.json)",
    )
    device: str = key(
        "a100", f"GPU of every replica: {', '.join(DEVICE_NAMES)}, or a device file (.json)"
    )
    devices: tuple[str, ...] | None = key(
        None, "GPU of each replica instead of `device`; null: all on `device`"
    )
    network_device: NodeName = key(
        "a100_dgx", "the node type that holds each `device`; other GPUs stand in their usual one"
    )
    tensor_parallel_size: int = key(1, "GPUs per pipeline stage", ge=1, le=64)
    num_pipeline_stages: int = key(1, "pipeline stages per replica", ge=1, le=64)
    replica_scheduler: Literal["sarathi", "vllm", "orca", "vllm_v1"] = key(
        "sarathi",
        "how a replica forms its batches; vllm is the vLLM of 2023, vllm_v1 that of today",
    )
    batch_size_cap: int = key(128, "requests in one batch at most", unit="requests", ge=1, le=4096)
    chunk_size: int = key(
        512, "sarathi, vllm_v1: tokens in one batch at most", unit="tokens", ge=32, le=65_536
    )
    max_tokens_in_batch: int = key(
        8192,
        "vllm: tokens in one batch at most, and so of the longest request",
        unit="tokens",
        ge=32,
        le=2**20,
    )
    block_size: int = key(16, "tokens per KV block", unit="tokens", ge=1, le=1024)
    num_blocks: int | None = key(
        None,
        "KV blocks per replica; null computes them from the device's memory",
        ge=1,
        le=10**8,
    )
    watermark_blocks_fraction: float = key(
        0.01, "KV blocks kept free when a request is admitted", ge=0, lt=1
    )
    prefix_caching: bool = key(
        True, "vllm_v1: KV blocks are found by the text they hold, and not computed again"
    )
    memory_margin_fraction: float = key(0.1, "device memory left alone", ge=0, lt=1)

    @field_validator("model_name")
    @classmethod
    def _model_is_known(cls, name: str) -> str:
        return named_or_file("model", name, MODELS)

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, name: str) -> str:
        return named_or_file("device", name, DEVICE_NAMES)

    @field_validator("devices")
    @classmethod
    def _devices_are_known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is None:
            return None
        return tuple(named_or_file("device", name, DEVICE_NAMES) for name in names)

    @model_validator(mode="after")
    def _node_holds_device(self) -> ClusterSection:
        """`network_device` is a node of `device`; a device file may stand in any."""
        nodes = [name for name in typing.get_args(NodeName) if name.startswith(f"{self.device}_")]
        if nodes and self.network_device not in nodes:
            raise ValueError(
                f"network_device={self.network_device!r} holds no device={self.device!r}; "
                f"choose {' or '.join(nodes)}"
            )
        return self

    @model_validator(mode="after")
    def _a_device_per_replica(self) -> ClusterSection:
        """`devices` names as many GPUs as `num_replicas`."""
        if self.devices is not None and len(self.devices) != self.num_replicas:
            raise ValueError(
                f"devices names {len(self.devices)} GPUs for num_replicas={self.num_replicas}; "
                "name one per replica, or change num_replicas"
            )
        return self

    def replica_devices(self) -> tuple[str, ...]:
        """Return the GPU of each replica."""
        return self.devices or (self.device,) * self.num_replicas

    def device_counts(self) -> str:
        """Return how many replicas stand on which GPU, e.g. ``2 x h100, 2 x a100``."""
        devices = self.replica_devices()
        return ", ".join(f"{devices.count(name)} x {name}" for name in dict.fromkeys(devices))

    @model_validator(mode="after")
    def _v1_has_one_stage(self) -> ClusterSection:
        """`replica_scheduler` "vllm_v1" needs `num_pipeline_stages` 1."""
        if self.replica_scheduler == "vllm_v1" and self.num_pipeline_stages != 1:
            raise ValueError(
                f'replica_scheduler="vllm_v1" has one pipeline stage: set num_pipeline_stages='
                f"{self.num_pipeline_stages} to 1, or choose another replica_scheduler"
            )
        return self

    @model_validator(mode="after")
    def _v1_batches_hold_a_token_each(self) -> ClusterSection:
        """`replica_scheduler` "vllm_v1" needs a `chunk_size` of `batch_size_cap` or more."""
        if self.replica_scheduler == "vllm_v1" and self.chunk_size < self.batch_size_cap:
            raise ValueError(
                f'replica_scheduler="vllm_v1" gives each of up to batch_size_cap='
                f"{self.batch_size_cap} requests a token of a batch of chunk_size="
                f"{self.chunk_size}: raise chunk_size, or lower batch_size_cap"
            )
        return self

    @model_validator(mode="after")
    def _model_splits_evenly(self) -> ClusterSection:
        """`tensor_parallel_size` divides the model's heads, `num_pipeline_stages` its layers."""
        if self.model_name not in MODELS:
            return self  # its file is read when the cluster is built
        shape = json.loads(MODELS[self.model_name].read_text(encoding="utf-8"))
        layers, heads = shape["num_layers"], shape["num_q_heads"]
        if heads % self.tensor_parallel_size:
            raise ValueError(
                f"tensor_parallel_size={self.tensor_parallel_size} must divide the {heads} query "
                f"heads of {self.model_name}"
            )
        if layers % self.num_pipeline_stages:
            raise ValueError(
                f"num_pipeline_stages={self.num_pipeline_stages} must divide the {layers} layers "
                f"of {self.model_name}"
            )
        return self


_FOLDER = "vidur_ext.routing.heuristics"

HEURISTIC_NAMES = module_names(_FOLDER)
"""The heuristics this plug-in adds, one file each."""

PLANNERS = ("lookahead", "clairvoyant")
"""Routers that simulate every choice with the compiled engine. The second one knows output lengths.
"""

ORACLES = (*marked(_FOLDER, "USES_OUTPUT_LENGTHS"), "clairvoyant")
"""Schedulers that know true output lengths, which no real router does."""

CONTROLS = marked(_FOLDER, "CONTROL")
"""Heuristics that are deliberately bad: a workload on which they do not lose cannot tell good
from bad."""

PREFIX_ROUTERS = marked(_FOLDER, "READS_PREFIXES")
"""Heuristics that ask what of a prompt is found where."""

SESSION_ROUTERS = marked(_FOLDER, "READS_SESSIONS")
"""Heuristics that ask whose a request is."""

SCHEDULERS = ("random", "round_robin", "lor", *HEURISTIC_NAMES, *PLANNERS)
"""Everything that can be named for the comparison; the first three are Vidur's own."""

USUAL_SCHEDULERS = tuple(n for n in SCHEDULERS if n not in (*PREFIX_ROUTERS, *SESSION_ROUTERS))
"""Those that are compared by default: they know neither texts nor sessions."""

# Nobody imitates a planner: what its choices cost, all of them, teaches more than which it took.
_TEACHERS = tuple(name for name in HEURISTIC_NAMES if name not in CONTROLS)

if TYPE_CHECKING:
    SchedulerName = str
    TeacherName = str
else:
    SchedulerName = Literal[SCHEDULERS]
    TeacherName = Literal[_TEACHERS]


REWARD_MODES = module_names("vidur_ext.routing.rewards")
"""What can be rewarded, one file each."""

if TYPE_CHECKING:
    RewardMode = str
else:
    RewardMode = Literal[REWARD_MODES]


class RewardSection(learner_sections.RewardScalingSection):
    """What is rewarded, per interval between two decisions."""

    mode: RewardMode = key(
        "latency_ttft",
        "what is rewarded; docs/features.md says what each of them pays for",
    )
    slo_ttft_s: float = key(
        1.0, "slo: objective for the time to first token", unit="s", ge=1e-3, le=1e6
    )
    slo_tbt_s: float = key(
        0.1, "slo: objective for the mean time between tokens", unit="s", ge=1e-4, le=1e6
    )
    throughput_weight: float = key(
        1.0,
        "score modes: weight of completed requests per arrived request",
        ge=0,
        le=1e6,
    )
    latency_weight: float = key(
        0.1, "score modes: weight of mean latency", unit="1/s", ge=0, le=1e6
    )
    imbalance_weight: float = key(
        0.1,
        "score modes: weight of the variation of outstanding requests over replicas",
        ge=0,
        le=1e6,
    )
    latency_threshold_s: float = key(
        20.0,
        "score modes: mean latency above this is penalized",
        unit="s",
        ge=1e-3,
        le=1e6,
    )
    threshold_penalty: float = key(0.5, "score modes: size of that penalty", ge=0, le=1e6)
    ema_alpha: float = key(
        0.1, "hybrid: weight of the newest value in the moving averages", gt=0, le=1
    )


class LookaheadSection(Section):
    """What routing is to make small, for the planner that simulates every choice, the policy it
    teaches, the reward `latency_ttft` and the validation: seconds to the last token of all requests
    plus `ttft_weight` times those to the first."""

    ttft_weight: float = key(
        8.0, "L: what a second to the first token weighs beside one to the last", ge=0, le=1000
    )


class SimulationSection(Section):
    """The simulator's own settings."""

    engine: Literal["compiled", "vidur"] = key(
        "compiled",
        "what simulates demonstrations, training, validation and comparison: Vidur itself, or our "
        "engine with its results at hundreds of times its speed",
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

    @field_validator("profile_dir")
    @classmethod
    def _home_is_meant(cls, path: str | None) -> str | None:
        return None if path is None else at_home(path)

    @model_validator(mode="after")
    def _local_needs_folder(self) -> SimulationSection:
        """`profile_dir` is given with a `local_*` predictor, and only then."""
        if self.predictor.startswith("local_") and self.profile_dir is None:
            raise ValueError(f"predictor={self.predictor!r} needs profile_dir")
        if not self.predictor.startswith("local_") and self.profile_dir is not None:
            raise ValueError(f"profile_dir has no effect with predictor={self.predictor!r}")
        return self


if TYPE_CHECKING:
    TraceFormatName = str
else:
    _TRACE_FORMATS = ("auto", *module_names("vidur_ext.workload.traces"))
    TraceFormatName = Literal[_TRACE_FORMATS]


PRESETS = module_names("vidur_ext.workload.presets")
"""Kinds of traffic with sessions and shared prefixes, one file each."""

if TYPE_CHECKING:
    SourceName = str
else:
    _SOURCES = ("synthetic", "trace", *PRESETS)
    SourceName = Literal[_SOURCES]


class WorkloadSection(Section):
    """The request stream."""

    source: SourceName = key(
        "synthetic",
        "where requests come from; " + ", ".join(PRESETS) + " are presets of sessions or templates",
    )
    qps: float = key(
        24.5, "synthetic, presets: mean arrival rate", unit="requests/s", ge=1e-3, le=1e6
    )
    arrival: Literal["poisson", "gamma"] = key(
        "gamma", "synthetic, presets: arrival process, of requests or of sessions"
    )
    burstiness_cv: float = key(
        2.0,
        "gamma: coefficient of variation of the gaps; 1 is Poisson",
        ge=0.01,
        le=20,
    )
    rate_profile: tuple[float, ...] = key(
        (1.0,),
        "synthetic: factors on qps, one after the other and again from the first; each holds for "
        "an equal part of rate_period",
        min_length=1,
    )
    rate_period: int = key(
        2048,
        "synthetic: requests in which rate_profile is gone through",
        unit="requests",
        ge=1,
        le=10**9,
    )
    code_fraction: float = key(
        0.2, "synthetic: share of code-completion requests among conversations", ge=0, le=1
    )
    output_tail_index: float | None = key(
        None,
        "synthetic: outputs are multiplied by Pareto numbers >= 1 of this tail index, which "
        "max_tokens cuts; smaller is heavier, null leaves them as fitted",
        gt=1,
        le=20,
    )
    length_scale: float = key(
        1.0,
        "presets: texts and answers are multiplied by this, for models with less context",
        ge=1e-3,
        le=1,
    )
    max_tokens: int = key(
        8192,
        "prompt + output of a request; longer prompts are cut at their ends",
        unit="tokens",
        ge=16,
        le=2**20,
    )
    trace_file: str | None = key(None, "trace: the file to replay", min_length=1)
    trace_format: TraceFormatName = key("auto", "trace: its format; auto looks at the first line")
    trace_time_unit: Literal["auto", "s", "ms", "us", "ns"] = key(
        "auto", "trace: unit of its time stamps; auto is what the format's publishers say"
    )
    rate_scale: float = key(1.0, "arrival rates are multiplied by this", ge=1e-3, le=1e3)
    holdout_fraction: float = key(
        0.2, "trace: share at its end that is kept for the comparison", gt=0, lt=1
    )

    @field_validator("trace_file")
    @classmethod
    def _home_is_meant(cls, path: str | None) -> str | None:
        return None if path is None else at_home(path)

    @model_validator(mode="after")
    def _trace_needs_file(self) -> WorkloadSection:
        """`trace_file` is given with `source` "trace", and only then."""
        if self.source == "trace" and self.trace_file is None:
            raise ValueError("source='trace' needs trace_file")
        if self.source != "trace" and self.trace_file is not None:
            raise ValueError(f"trace_file has no effect with source={self.source!r}")
        return self

    @model_validator(mode="after")
    def _presets_have_their_own(self) -> WorkloadSection:
        """`length_scale` belongs to presets; `rate_profile` and `output_tail_index` do not."""
        preset = self.source in PRESETS
        idle = {
            "length_scale": not preset and self.length_scale != 1.0,
            "rate_profile": preset and self.rate_profile != (1.0,),
            "output_tail_index": preset and self.output_tail_index is not None,
        }
        for name in (name for name, is_idle in idle.items() if is_idle):
            raise ValueError(f"{name} has no effect with source={self.source!r}; leave it out")
        return self

    @model_validator(mode="after")
    def _profile_has_rates(self) -> WorkloadSection:
        """`rate_profile` holds numbers from 0.001 to 1000, no more of them than `rate_period`."""
        if not all(1e-3 <= factor <= 1e3 for factor in self.rate_profile):
            raise ValueError(
                f"rate_profile must be from 0.001 to 1000 all over: {list(self.rate_profile)}"
            )
        if len(self.rate_profile) > self.rate_period:
            raise ValueError(
                f"rate_profile has {len(self.rate_profile)} factors for rate_period="
                f"{self.rate_period} requests; raise rate_period, or name fewer factors"
            )
        return self


class WarmstartSection(Section):
    """What the policy is taught before PPO: by what every choice costs, or by demonstrations."""

    enabled: bool = key(True, "off: PPO starts from random weights")
    method: Literal["costs", "imitation"] = key(
        "costs",
        "costs: look-ahead routes first, then the policy itself, and look-ahead prices every "
        "choice of a share of the decisions; imitation: heuristics are cloned",
    )
    rounds: int = key(
        4,
        "costs: times that decisions are priced and the policy is fitted to all so far",
        ge=1,
        le=100,
    )
    labels_per_round: int = key(
        32_000,
        "costs: decisions that are priced to learn from, per round",
        unit="decisions",
        ge=16,
        le=10**7,
    )
    label_share: float = key(
        0.25, "costs: share of the simulated decisions that is priced to learn from", ge=1e-3, le=1
    )
    random_share: float = key(
        0.1, "costs: share of the decisions that are routed at random meanwhile", ge=0, le=1
    )
    steps_per_round: int = key(800, "costs: gradient steps per round", ge=1, le=10**7)
    entropy_coef: float = key(
        0.01,
        "costs: entropy bonus of the fit, beside costs in standard deviations",
        ge=0,
        le=1e6,
    )
    teachers: tuple[TeacherName, ...] = key(
        ("min_predicted_latency", "least_tokens"),
        "imitation: heuristics; those whose choice follows from the observation teach best",
        min_length=1,
    )
    load_levels: tuple[float, ...] = key(
        (0.7, 1.0), "arrival rates to learn at, relative to the workload's", min_length=1
    )
    demo_requests: int = key(
        4096,
        "imitation: decisions per teacher and load level",
        unit="requests",
        ge=16,
        le=10**7,
    )
    epochs: int = key(30, "imitation: passes over the demonstrations at most", ge=1, le=10**6)
    patience: int = key(
        5, "imitation: epochs without better held-out loss before stopping", ge=1, le=10**6
    )
    batch_size: int = key(1024, "decisions per gradient step", unit="decisions", ge=1, le=10**7)
    learning_rate: float = key(
        1e-3, "AdamW step size; with costs it falls to a tenth in every round", gt=0, le=1
    )
    holdout_fraction: float = key(
        0.15, "share of the decisions that is held out to judge what was learned", gt=0, lt=1
    )

    @model_validator(mode="after")
    def _positive_levels(self) -> WarmstartSection:
        """`load_levels` are from 0.01 to 100, `teachers` names each once."""
        if not all(0.01 <= level <= 100 for level in self.load_levels):
            raise ValueError(f"load_levels must all be from 0.01 to 100: {list(self.load_levels)}")
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"teachers names one heuristic twice: {list(self.teachers)}")
        return self


class TerminalValueSection(Section):
    """What the requests still to come add to the cost of a choice, learned after the warm start
    from simulations that branch: the same requests once for each of several choices."""

    enabled: bool = key(
        False,
        "off: PPO takes the costs of choices as look-ahead prices them, as if nothing arrived any "
        "more; without a warm start, or with ppo_config.advantage gae, there is none",
    )
    decisions: int = key(
        32_768, "decisions that branch, to learn from", unit="decisions", ge=16, le=10_000_000
    )
    choices: int = key(
        4,
        "choices that are gone through for each: the cheapest half of them and others at random",
        unit="choices",
        ge=2,
        le=64,
    )
    horizon: int = key(
        8, "requests per replica that come after the decision", unit="requests", ge=0, le=1000
    )
    steps: int = key(1000, "gradient steps of the fit", ge=1, le=10**9)


class ParallelSection(Section):
    """What is done side by side."""

    num_envs: int = key(
        100,
        "simulations that the policy decides for at once; 1 with the engine vidur",
        unit="simulations",
        ge=1,
        le=4096,
    )
    num_shards: int = key(
        8,
        "parts of the environments whose gradients are computed alone and added in order; with "
        "fewer environments each is one. Training depends on it, not on the number of processes",
        unit="shards",
        ge=1,
        le=4096,
    )
    num_processes: int = key(
        1,
        "processes that train together, each with as many shards; the result is the same",
        unit="processes",
        ge=1,
        le=4096,
    )
    max_restarts: int = key(
        3,
        "how often a training whose other processes were lost goes on from its last checkpoint by "
        "itself",
        unit="restarts",
        ge=0,
        le=10**6,
    )
    num_workers: int = key(
        2,
        "processes for what takes long: Vidur's runs, and planners in the comparison",
        ge=1,
        le=256,
    )


class EvaluationSection(Section):
    """The comparison at the end."""

    enabled: bool = key(True, "off: training ends without a comparison")
    schedulers: tuple[SchedulerName, ...] = key(
        USUAL_SCHEDULERS, "heuristics that PPO is compared with", min_length=1
    )
    baseline: SchedulerName = key("least_outstanding", "the heuristic differences are taken to")
    num_seeds: int = key(16, "held-out workloads", ge=1, le=1000)
    vidur_workloads: int = key(
        1,
        "engine compiled: how many of them, from the first on, Vidur repeats with every scheduler "
        "as the check; with the engine vidur it runs them all in any case",
        unit="workloads",
        ge=0,
        le=1000,
    )
    requests: int = key(2048, "requests per held-out workload", unit="requests", ge=16, le=10**6)
    warmup_fraction: float = key(
        0.1, "share of each run's first requests that is not counted", ge=0, lt=1
    )
    slo_ttft_s: float = key(1.0, "objective for the time to first token", unit="s", ge=1e-3, le=1e6)
    slo_tbt_s: float = key(
        0.1, "objective for the mean time between tokens", unit="s", ge=1e-4, le=1e6
    )
    bootstrap_samples: int = key(500, "resamples behind the confidence intervals", ge=10, le=10**5)

    @model_validator(mode="after")
    def _baseline_runs(self) -> EvaluationSection:
        """`schedulers` names each once and contains `baseline`."""
        if len(set(self.schedulers)) != len(self.schedulers):
            raise ValueError(f"schedulers names one heuristic twice: {list(self.schedulers)}")
        if self.baseline not in self.schedulers:
            raise ValueError(f"baseline={self.baseline!r} must be one of schedulers")
        return self

    @model_validator(mode="after")
    def _vidur_repeats_what_there_is(self) -> EvaluationSection:
        """`vidur_workloads` is at most `num_seeds`."""
        if self.vidur_workloads > self.num_seeds:
            raise ValueError(
                f"vidur_workloads={self.vidur_workloads} of num_seeds={self.num_seeds} held-out "
                "workloads cannot be repeated; lower vidur_workloads, or raise num_seeds"
            )
        return self
