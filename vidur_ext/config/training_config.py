"""The whole configuration of a run: one JSON file."""

from __future__ import annotations

import hashlib
import json

from pydantic import model_validator
from typing_extensions import Self

from ppo_scheduler.config.learner_sections import LearnerConfig
from ppo_scheduler.config.section import key
from vidur_ext.config.routers import RoutersSection
from vidur_ext.config.sections import (
    ORACLES,
    PLANNERS,
    PREFIX_ROUTERS,
    ClusterSection,
    EvaluationSection,
    LookaheadSection,
    ParallelSection,
    RewardSection,
    SimulationSection,
    TerminalValueSection,
    WarmstartSection,
    WorkloadSection,
)


def misfit(engine: str, num_envs: int, rollout_len: int, total_requests: int) -> str | None:
    """Say why a training cannot run in ``num_envs`` environments, and what to do; None if it can.

    All environments step together, so rollouts and the budget are split evenly among them.
    """
    if engine == "vidur" and num_envs != 1:
        return (
            f'simulation.engine="vidur" runs one environment, not parallel_training.num_envs='
            f'{num_envs}: set num_envs to 1, or the engine to "compiled"'
        )
    if rollout_len % num_envs:
        return (
            f"ppo_config.rollout_len={rollout_len} is no multiple of "
            f"parallel_training.num_envs={num_envs}: choose {_multiples(rollout_len, num_envs)}"
        )
    if total_requests % num_envs:
        return (
            f"training.total_requests={total_requests} (--total-requests) is no "
            f"multiple of parallel_training.num_envs={num_envs}: choose "
            f"{_multiples(total_requests, num_envs)}, or another num_envs"
        )
    return None


def unsplittable(config: TrainingConfig, num_processes: int) -> str | None:
    """Say why so many processes cannot train together, and what to do; None if they can."""
    parallel = config.parallel_training
    shards = min(parallel.num_shards, parallel.num_envs)
    if shards % num_processes:
        fitting = ", ".join(str(n) for n in range(1, shards + 1) if shards % n == 0)
        return (
            f"{num_processes} processes cannot share {shards} shards evenly "
            "(parallel_training.num_shards, at most one for each of num_envs): choose "
            f"parallel_training.num_processes {fitting}"
        )
    by_torch = config.training.kernel == "torch"
    if num_processes > 1 and (by_torch or config.actor_critic_architecture.attention_layers):
        return (
            "several processes need the compiled network, whose results do not depend on how many "
            'decisions it takes at once: set training.kernel to "fused" and '
            "actor_critic_architecture.attention_layers to 0, or parallel_training.num_processes "
            "to 1"
        )
    return None


def uneven_interval(config: TrainingConfig) -> str | None:
    """Say that checkpoints fall into ever other places of a rollout; None if they do not."""
    steps = config.ppo_config.rollout_len // config.parallel_training.num_envs
    section = config.checkpointing
    if not section.enable_checkpoints or section.checkpoint_interval % steps == 0:
        return None
    return (
        f"checkpointing.checkpoint_interval={section.checkpoint_interval} is no multiple of the "
        f"{steps} steps of a rollout (ppo_config.rollout_len by parallel_training.num_envs): every "
        "checkpoint holds another part of one. A resume is exact all the same; choose "
        f"{_multiples(section.checkpoint_interval, steps)} for checkpoints of one size"
    )


def beyond_the_engine(
    predictor: str, num_pipeline_stages: int, replica_scheduler: str
) -> str | None:
    """Say what of a cluster the compiled engine does not simulate; None if it does all."""
    asked: tuple[tuple[str, str | int, tuple[str | int, ...]], ...] = (
        ("simulation.predictor", predictor, ("analytic",)),
        ("cluster.num_pipeline_stages", num_pipeline_stages, (1,)),
        ("cluster.replica_scheduler", replica_scheduler, ("sarathi", "vllm", "orca", "vllm_v1")),
    )
    for name, value, simulated in asked:
        if value not in simulated:
            return f"{name}={' or '.join(map(repr, simulated))} only, not {value!r}"
    return None


def devices_need_analytic(predictor: str) -> str:
    """Say that a predictor cannot know several devices."""
    return (
        f'cluster.devices needs simulation.predictor "analytic", not "{predictor}": '
        "change it, or set cluster.devices to null"
    )


def _multiples(value: int, step: int) -> str:
    """Name the multiples of ``step`` around ``value``."""
    below = value // step * step
    return f"{below} or {below + step}" if below else str(step)


class RouterConfig(LearnerConfig):
    """The learner's groups, with what it is rewarded for."""

    reward_config: RewardSection = key(RewardSection(), "what is rewarded")
    lookahead: LookaheadSection = key(LookaheadSection(), "what routing is to make small")
    terminal_value: TerminalValueSection = key(
        TerminalValueSection(), "what look-ahead leaves out of the cost of a choice"
    )


class TrainingConfig(RouterConfig):
    """One JSON file: the learner's groups and those of the run around it."""

    cluster: ClusterSection = key(ClusterSection(), "the served cluster")
    simulation: SimulationSection = key(SimulationSection(), "the simulator")
    workload: WorkloadSection = key(WorkloadSection(), "the request stream")
    warmstart: WarmstartSection = key(WarmstartSection(), "what the policy is taught before PPO")
    parallel_training: ParallelSection = key(ParallelSection(), "work spread over processes")
    evaluation: EvaluationSection = key(EvaluationSection(), "the comparison at the end")
    routers: RoutersSection = key(RoutersSection(), "what heuristics are told")

    @model_validator(mode="after")
    def _teachers_can_be_followed(self) -> Self:
        """`warmstart.teachers` contains a heuristic that knows true output lengths only if
        `observation.output_length` is "oracle": what the policy does not see it cannot imitate."""
        hidden = self.observation.output_length == "hidden"
        if self.warmstart.method != "imitation":
            return self
        oracles = [name for name in self.warmstart.teachers if name in ORACLES]
        if self.warmstart.enabled and hidden and oracles:
            raise ValueError(
                f"warmstart.teachers contains {oracles[0]}, whose choice follows from true output "
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
    def _processes_fit(self) -> Self:
        """`parallel_training.num_processes` divides the number of shards; above 1 it needs
        `training.kernel` "fused" and no `actor_critic_architecture.attention_layers`."""
        problem = unsplittable(self, self.parallel_training.num_processes)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _predictor_knows_the_devices(self) -> Self:
        """`cluster.devices` needs `simulation.predictor` "analytic": profiles are one device's."""
        predictor = self.simulation.predictor
        if self.cluster.devices is not None and predictor != "analytic":
            raise ValueError(devices_need_analytic(predictor))
        return self

    @model_validator(mode="after")
    def _engine_simulates_the_cluster(self) -> Self:
        """`simulation.engine` "compiled" needs `simulation.predictor` "analytic",
        `cluster.num_pipeline_stages` 1, and another `cluster.replica_scheduler` than "vllm_v1"."""
        beyond = self._beyond_the_engine()
        if self.simulation.engine == "compiled" and beyond is not None:
            raise ValueError(
                f'simulation.engine="compiled" simulates {beyond}: change it, or set '
                'simulation.engine to "vidur", parallel_training.num_envs to 1, '
                'ppo_config.advantage to "gae" and warmstart.method to "imitation"'
            )
        return self

    @model_validator(mode="after")
    def _planners_simulate_the_cluster(self) -> Self:
        """`evaluation.schedulers` contains no planner where `simulation.engine` "compiled" is
        impossible: planners simulate their choices with it, whatever simulates the requests."""
        beyond = self._beyond_the_engine()
        named = [name for name in PLANNERS if name in self.evaluation.schedulers]
        if self.evaluation.enabled and named and beyond is not None:
            raise ValueError(
                f"evaluation.schedulers contains {' and '.join(named)}, which plan with the "
                f"compiled engine; it simulates {beyond}: remove them from evaluation.schedulers"
            )
        return self

    @model_validator(mode="after")
    def _planners_see_the_present(self) -> Self:
        """`evaluation.schedulers` contains no planner with `observation.signal_delay_s` or
        `observation.kv_event_delay_s` above 0: planners plan from the cluster as it is."""
        named = [name for name in PLANNERS if name in self.evaluation.schedulers]
        for name in ("signal_delay_s", "kv_event_delay_s"):
            delay_s = getattr(self.observation, name)
            if self.evaluation.enabled and named and delay_s:
                raise ValueError(
                    f"evaluation.schedulers contains {' and '.join(named)}, which plan from the "
                    f"cluster as it is; with observation.{name}={delay_s:g} no scheduler may "
                    "see it: remove them from evaluation.schedulers, or set the delay to 0"
                )
        return self

    @model_validator(mode="after")
    def _prefixes_are_known(self) -> Self:
        """`evaluation.schedulers` and `warmstart.teachers` contain a heuristic that goes by prefix
        caches only if `observation.prefix_knowledge` is not "none"."""
        imitates = self.warmstart.enabled and self.warmstart.method == "imitation"
        named = {
            "evaluation.schedulers": self.evaluation.schedulers if self.evaluation.enabled else (),
            "warmstart.teachers": self.warmstart.teachers if imitates else (),
        }
        for where, names in named.items():
            blind = [name for name in names if name in PREFIX_ROUTERS]
            if blind and self.observation.prefix_knowledge == "none":
                raise ValueError(
                    f"{where} contains {' and '.join(blind)}, which go by what of a prompt is "
                    'found where, and observation.prefix_knowledge="none" tells nobody: set it to '
                    f'"exact" or "approximate", or remove them from {where}'
                )
        return self

    @model_validator(mode="after")
    def _there_is_something_to_know(self) -> Self:
        """`observation.prefix_knowledge` other than "none" needs `cluster.replica_scheduler`
        "vllm_v1" with `cluster.prefix_caching`."""
        known, cluster = self.observation.prefix_knowledge, self.cluster
        cached = cluster.replica_scheduler == "vllm_v1" and cluster.prefix_caching
        if known != "none" and not cached:
            raise ValueError(
                f'observation.prefix_knowledge="{known}" knows of prefix caches, which replicas '
                'have with cluster.replica_scheduler "vllm_v1" and cluster.prefix_caching: set '
                'these, or prefix_knowledge to "none"'
            )
        return self

    @model_validator(mode="after")
    def _a_rollout_prices_choices(self) -> Self:
        """With `ppo_config.advantage` "counterfactual", `ppo_config.rollout_len` has a priced
        decision in each of `parallel_training.num_envs` environments."""
        ppo, num_envs = self.ppo_config, self.parallel_training.num_envs
        steps = ppo.rollout_len // num_envs
        if ppo.advantage == "counterfactual" and steps * ppo.counterfactual_share < 1.0:
            raise ValueError(
                f"ppo_config.rollout_len={ppo.rollout_len} is {steps} decisions in each of "
                f"parallel_training.num_envs={num_envs} environments, of which "
                f"ppo_config.counterfactual_share={ppo.counterfactual_share:g} prices none: raise "
                "rollout_len or the share"
            )
        return self

    @model_validator(mode="after")
    def _choices_can_be_priced(self) -> Self:
        """`ppo_config.advantage` "counterfactual" and `warmstart.method` "costs" need
        `simulation.engine` "compiled"."""
        if self.simulation.engine == "compiled":
            return self
        if self.ppo_config.advantage == "counterfactual":
            raise ValueError(
                'ppo_config.advantage="counterfactual" prices every choice, which '
                'simulation.engine="vidur" cannot: set it to "gae", or the engine to "compiled"'
            )
        if self.warmstart.enabled and self.warmstart.method == "costs":
            raise ValueError(
                'warmstart.method="costs" prices every choice, which simulation.engine="vidur" '
                'cannot: set it to "imitation", or the engine to "compiled"'
            )
        return self

    @model_validator(mode="after")
    def _corrected_costs_are_leashed(self) -> Self:
        """With `terminal_value.enabled`, `kl_regularization.final_coef` is above 0."""
        if self.corrects_costs and self.kl_regularization.final_coef == 0.0:
            raise ValueError(
                "terminal_value.enabled: what is foreseen holds near the warm start alone, and "
                "with kl_regularization.final_coef=0 PPO drifts away from it: set final_coef to "
                "0.02, and kl_regularization.decay_steps to half of training.total_requests"
            )
        return self

    def _beyond_the_engine(self) -> str | None:
        cluster = self.cluster
        return beyond_the_engine(
            self.simulation.predictor, cluster.num_pipeline_stages, cluster.replica_scheduler
        )

    @property
    def corrects_costs(self) -> bool:
        """Whether a training that begins with a policy learns more than look-ahead prices."""
        priced = self.ppo_config.advantage == "counterfactual"
        return self.terminal_value.enabled and priced and self.cluster.num_replicas > 1

    def on_cluster_of(self, other: TrainingConfig) -> TrainingConfig:
        """Return this config with the cluster and the workload of another one; with its objective,
        too, if the policy sees what that is."""
        groups = ["cluster", "simulation", "workload"]
        if self.observation.objective:
            groups.append("lookahead")
        return self.model_copy(update={group: getattr(other, group) for group in groups})

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON text: equal settings, equal digest."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
