"""The learner: rollout, update and bookkeeping, reached by its one door, ``decide``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ppo_scheduler.config.learner_sections import LearnerConfig
from ppo_scheduler.control.collapse_guard import CollapseGuard
from ppo_scheduler.control.reward_scaling import RewardScaler, StatisticsStabilizer
from ppo_scheduler.control.temperature import TemperatureController
from ppo_scheduler.monitoring.scalars import MetricsRecorder
from ppo_scheduler.observation import TELEMETRY, Floats, Observation, ObservationSchema
from ppo_scheduler.parallel.shards import Shards
from ppo_scheduler.policy.routing_policy import Features, RoutingPolicy
from ppo_scheduler.ppo.batches import Batch, PricedBatch, SampledBatch
from ppo_scheduler.ppo.objective import (
    advantages_and_returns,
    discount,
    draw,
    explained_variance,
)
from ppo_scheduler.ppo.rollout import ActionLog, RolloutBuffer, RolloutOfAll, Row
from ppo_scheduler.ppo.schedules import (
    entropy_coefficient,
    kl_coefficient,
    learning_rate_factor,
)
from ppo_scheduler.ppo.terminal_value import TerminalValue
from ppo_scheduler.ppo.update import Coefficients, PPOUpdater
from ppo_scheduler.seeding import Purpose, generator, torch_seed
from ppo_scheduler.state import StateDict, Stateful, load_rng_state, rng_state

_QPS, _LATENCY, _BALANCE, _ELAPSED = (
    TELEMETRY.index(name) for name in ("qps", "latency_s", "balance", "elapsed_s")
)


class Learner:
    """Decides for B environments at once and learns from what follows.

    The B are those of this process; what is learned is learned from all E, in every process alike.
    ``global_step`` counts decisions over all environments and all resumes; ``ppo_step`` counts
    calls of ``decide``.
    """

    def __init__(
        self,
        config: LearnerConfig,
        schema: ObservationSchema,
        num_replicas: int,
        metrics: MetricsRecorder,
        *,
        shards: Shards | None = None,
        warm_start: StateDict | None = None,
        after_decision: Callable[[], None] = lambda: None,
        on_event: Callable[[str], None] = lambda event: None,
    ) -> None:
        """Begin from random weights, or from the policy state ``warm_start`` exactly.

        With a warm start a frozen copy of the policy becomes the KL reference.

        Args:
            shards: how the environments are split; None is a single one.
            after_decision: called at the end of each ``decide``, when the state is consistent:
                checkpoints are taken there.
            on_event: is told what a person should know, in words.
        """
        ppo = config.ppo_config
        seed = config.training.seed
        shards = shards or Shards(1)
        self.config = config
        self.num_replicas = num_replicas
        self.metrics = metrics

        self.policy = RoutingPolicy(
            schema,
            config.actor_critic_architecture,
            config.observation.clip,
            config.training.kernel,
        )
        self.policy.initialize(torch_seed(seed, Purpose.NETWORK_INIT))
        if warm_start is not None:
            self.policy.load_state_dict(warm_start)
        self.updater = PPOUpdater(self.policy.network, ppo, config.advanced_optimization, shards)
        if warm_start is not None:
            self.updater.keep_reference()

        self.reward_scaler = RewardScaler(shards, config.reward_config.clip)
        self.temperature = TemperatureController(config.temperature_control)
        self.guard = CollapseGuard(config.collapse_guard, num_replicas)
        self.stabilizer = StatisticsStabilizer(
            config.statistics_stabilization, warm_started=warm_start is not None
        )
        self.rollout = RolloutBuffer(
            schema,
            length=ppo.rollout_len // shards.num_envs,
            num_envs=shards.size,
            num_replicas=num_replicas,
            priced=ppo.advantage == "counterfactual",
        )
        self.action_log = ActionLog(shards.size)
        self.terminal_value: TerminalValue | None = None
        """Added to the costs of choices; None takes them as they are."""
        self.global_step = 0
        self.ppo_step = 0
        self.updates = 0
        self._shards = shards
        self._pending: Row | None = None
        """The last decision, whose reward is not known yet."""
        self._after_decision = after_decision
        self._on_event = on_event
        self._action_rng = generator(seed, Purpose.ACTION_SAMPLING)
        self._minibatch_rng = generator(seed, Purpose.MINIBATCH_ORDER)
        self._clock = (time.perf_counter(), 0)

    def asks(self) -> NDArray[np.bool_] | None:
        """Return for which of the B next decisions [B] it wants to know what every choice costs.

        It asks each environment in turn, for the configured share of its decisions; with GAE it
        never does, and there is None.
        """
        ppo = self.config.ppo_config
        if ppo.advantage == "gae":
            return None
        turns = self.ppo_step + np.arange(self._shards.num_envs)[self._shards.envs]
        share = ppo.counterfactual_share
        asked: NDArray[np.bool_] = np.floor((turns + 1) * share) > np.floor(turns * share)
        return asked

    def decide(
        self,
        observation: Observation,
        reward: Floats,
        done: NDArray[np.bool_],
        costs: Floats | None = None,
    ) -> NDArray[np.int64]:
        """Return a replica [B] for each of B arriving requests.

        Args:
            observation: what is seen now.
            reward: [B], earned since the previous decision; ignored at the first one.
            done: [B], true where the previous decision was the last of its episode, so that
                ``observation`` opens a new one.
            costs: [B, R], what every choice costs, NaN where the learner did not ask; less is
                better, and only differences within a row count. None if it never ``asks``.
        """
        priced = self.config.ppo_config.advantage == "counterfactual"
        assert (costs is not None) == priced, "costs are given if they are asked for"
        if costs is not None and self.terminal_value is not None:
            costs = self.terminal_value.add_to(costs, observation)
        if self._pending is None:
            reward = np.zeros_like(reward)
        else:
            self._earn(self._pending, observation, reward, done)
        if self.stabilizer.collects_observations(self.global_step):
            self.policy.collect(self._seen_by_all(observation))
        features = self.policy.normalize(observation)
        if self.rollout.full:
            self._update(features)

        temperature = self._behavior_temperature(observation, reward)
        logits, value = self.policy.evaluate(features)
        uniform = self._action_rng.random(self._shards.num_envs)
        action, chosen = draw(logits.numpy(), temperature, uniform[self._shards.envs])
        replicas, context = features
        self._pending = {
            "replicas": replicas,
            "context": context,
            "action": action,
            "log_prob": chosen,
            "value": value,
            "temperature": temperature,
            "costs": np.zeros((len(action), 0)) if costs is None else costs,
        }
        self.action_log.append(action, done)
        self.ppo_step += 1
        self.global_step += self._shards.num_envs
        self._after_decision()
        return action

    def new_terminal_value(self) -> TerminalValue:
        """Return one that has learned nothing yet, for what this learner sees."""
        config, schema = self.config, self.policy.schema
        return TerminalValue(
            schema,
            config.actor_critic_architecture,
            config.observation.clip,
            config.training.kernel,
        )

    def abandon_episodes(self) -> None:
        """Let the next decisions open new episodes, although the last ones have not ended."""
        self._pending = None
        self.rollout.end_episodes()
        self.action_log.clear()

    def _earn(
        self,
        decision: Row,
        observation: Observation,
        reward: Floats,
        done: NDArray[np.bool_],
    ) -> None:
        section = self.config.reward_config
        scaled = reward
        if section.normalize and self.config.ppo_config.advantage == "gae":
            passed = discount(observation.telemetry[:, _ELAPSED], section.horizon_s)
            scaled = self.reward_scaler.scale(reward, passed, done)
        if self.stabilizer.learning(self.global_step):
            self.rollout.add(
                {
                    **decision,
                    "reward": scaled,
                    "raw_reward": reward,
                    "done": done,
                    "telemetry": observation.telemetry,
                }
            )

    def _behavior_temperature(self, observation: Observation, reward: Floats) -> Floats:
        temperature = self.temperature.current_temperature
        if self.config.temperature_control.enabled:
            own = observation.telemetry[:, : len(TELEMETRY)]
            measured = self._shards.together(np.column_stack([own, reward]))
            # Environments without a completed request report NaN as their latency.
            known = measured[~np.isnan(measured[:, _LATENCY])]
            means = measured.mean(axis=0).tolist()
            temperature = self.temperature.update(
                qps=means[_QPS],
                latency_s=float(known[:, _LATENCY].mean()) if len(known) else float("nan"),
                balance=means[_BALANCE],
                reward=means[-1],
            )
        return np.full(len(reward), temperature * self.guard.temperature_factor)

    def _seen_by_all(self, observation: Observation) -> Observation:
        """Return what is seen of all E environments."""
        own = (observation.replicas, observation.context, observation.telemetry)
        return Observation(*self._shards.all_together(own))

    def _watch(self, action: NDArray[np.integer]) -> None:
        """Look at the actions [T, E] of the full rollout, one step after the other."""
        event = self.guard.observe(action.reshape(-1))
        if event is not None:
            self._on_event(event)

    def _update(self, features: Features) -> None:
        """Learn from the full rollout; ``features`` are those of the decision after it."""
        started = time.perf_counter()
        together = RolloutOfAll.of(self.rollout, self.policy.schema, self._shards)
        self._watch(together.action)
        scalars = together.scalars(self.policy.schema, self.num_replicas)
        if self.config.ppo_config.advantage == "counterfactual":
            scalars |= self._learn_from_costs()
        else:
            scalars |= self._learn_from_returns(features)
        self.rollout.clear()
        self.updates += 1
        scalars.update(self._control_scalars(started))
        self.metrics.record(self.global_step, scalars)

    def _learn_from_costs(self) -> dict[str, float]:
        ppo, network = self.config.ppo_config, self.policy.network
        batches = [
            PricedBatch.from_rollout(self.rollout, envs, network) for envs in self._shards.parts
        ]
        lengths = self._lengths(batches)
        own = [batch.advantage.numpy() for batch in batches]
        advantage = torch.from_numpy(self._shards.rows_together(own, lengths))
        deviation = float(advantage.std())
        scalars = {
            "Rollout/Regret": float(advantage.amax(dim=1).mean()),
            "Rollout/AdvantageStd": deviation,
        }
        normalize = ppo.normalize_advantages
        batches = [
            batch.scaled(deviation, ppo.advantage_clip, normalize=normalize) for batch in batches
        ]
        return scalars | self._improve(batches, lengths)

    def _learn_from_returns(self, features: Features) -> dict[str, float]:
        ppo, rollout = self.config.ppo_config, self.rollout
        _, next_value = self.policy.evaluate(features)
        passed = discount(rollout.telemetry[..., _ELAPSED], self.config.reward_config.horizon_s)
        advantage, target = advantages_and_returns(
            rollout.reward, rollout.value, rollout.done, next_value, passed, ppo.gae_lambda
        )
        values, advantages, targets = self._shards.all_together(
            [rollout.value, advantage, target], axis=1
        )
        scalars = {
            "Training/ExplainedVariance": explained_variance(values, targets),
            "Rollout/ValueMean": float(values.mean()),
            "Rollout/ReturnMean": float(targets.mean()),
            "Rollout/AdvantageStd": float(advantages.std()),
        }
        if ppo.normalize_advantages:
            advantage = (advantage - advantages.mean()) / (advantages.std() + 1e-8)
        batches = [
            SampledBatch.from_rollout(rollout, envs, advantage, target)
            for envs in self._shards.parts
        ]
        lengths = self._lengths(batches)
        if self.updates < ppo.critic_warmup_updates:
            return scalars | self.updater.fit_critic(batches, lengths)
        return scalars | self._improve(batches, lengths)

    def _lengths(self, batches: Sequence[Batch]) -> NDArray[np.int64]:
        """Return how many decisions each shard has to learn from [S]."""
        return self._shards.of_shards(np.array([len(batch) for batch in batches]))

    def _improve(self, batches: Sequence[Batch], lengths: NDArray[np.int64]) -> dict[str, float]:
        return self.updater.update(batches, lengths, self._coefficients(), self._minibatch_rng)

    def _coefficients(self) -> Coefficients:
        config, step = self.config, self.global_step
        factor = learning_rate_factor(
            config.advanced_optimization, step, config.training.total_requests
        )
        return Coefficients(
            learning_rate=config.ppo_config.learning_rate * factor,
            entropy=self.guard.entropy_coef(entropy_coefficient(config.ppo_config, step)),
            reference_kl=kl_coefficient(config.kl_regularization, step),
        )

    def _control_scalars(self, started: float) -> dict[str, float]:
        now = time.perf_counter()
        since, step = self._clock
        self._clock = (now, self.global_step)
        return {
            "Training/RewardScale": self.reward_scaler.std,
            "Control/Temperature": self.temperature.current_temperature,
            "Control/TemperaturePulses": float(self.temperature.pulses),
            "Control/CollapseInterventions": float(self.guard.interventions),
            "Speed/UpdateSeconds": now - started,
            "Speed/DecisionsPerSecond": (self.global_step - step) / (now - since),
        }

    def state_dict(self) -> StateDict:
        """Return everything that changes while training, in two parts: what learns, what acts.

        It is that of all environments: every process returns the same, and all call it together.
        """
        return {"learner": self._learning_state(), "rollout": self._rollout_state()}

    def load_state_dict(self, state: StateDict) -> None:
        """Continue where ``state_dict`` was taken; the config may differ in tunable values.

        Raises:
            IncompatibleState: the state was made for other features or another network.
        """
        learner, rollout = state["learner"], state["rollout"]
        same_envs = rollout["num_envs"] == self._shards.num_envs
        same_cluster = rollout["num_replicas"] == self.num_replicas
        same_columns = self.rollout.fits(rollout["buffer"])
        self._load_learning_state(learner, same_cluster=same_cluster)
        load_rng_state(self._action_rng, rollout["action_rng"])
        if same_envs and same_cluster and same_columns:
            self._load_rollout_state(rollout)
        else:
            self._on_event(
                f"the checkpoint's unfinished rollout ({rollout['num_replicas']} replicas, "
                f"{rollout['num_envs']} environments, {rollout['buffer']['filled']} steps) does "
                f"not fit {self.num_replicas} replicas, {self._shards.num_envs} environments and "
                f"{self.rollout.length} steps with what ppo_config.advantage="
                f'"{self.config.ppo_config.advantage}" needs: it is collected anew'
            )

    @property
    def _parts(self) -> dict[str, Stateful]:
        """What learns and steers, by its name in a checkpoint."""
        return {
            "policy": self.policy,
            "reward_scaler": self.reward_scaler,
            "temperature": self.temperature,
            "guard": self.guard,
            "stabilizer": self.stabilizer,
        }

    def _learning_state(self) -> StateDict:
        with_optimizer = self.config.checkpointing.save_optimizer_state
        return {
            **{name: part.state_dict() for name, part in self._parts.items()},
            "updater": self.updater.state_dict(with_optimizer=with_optimizer),
            "terminal_value": value.state_dict() if (value := self.terminal_value) else None,
            "counters": {
                "global_step": self.global_step,
                "ppo_step": self.ppo_step,
                "updates": self.updates,
            },
            "minibatch_rng": rng_state(self._minibatch_rng),
        }

    def _load_learning_state(self, state: StateDict, *, same_cluster: bool) -> None:
        for name, part in self._parts.items():
            if name != "guard" or same_cluster:
                part.load_state_dict(state[name])
        self.updater.load_state_dict(state["updater"])
        self.terminal_value = None
        if (learned := state["terminal_value"]) is not None:
            self.terminal_value = self.new_terminal_value()
            self.terminal_value.load_state_dict(learned)
        counters = state["counters"]
        self.global_step = counters["global_step"]
        self.ppo_step = counters["ppo_step"]
        self.updates = counters["updates"]
        self._clock = (time.perf_counter(), self.global_step)
        load_rng_state(self._minibatch_rng, state["minibatch_rng"])

    def _rollout_state(self) -> StateDict:
        return {
            "buffer": self.rollout.state_dict(self._shards),
            "pending": None if self._pending is None else self._of_all(self._pending),
            "action_log": self._of_all(self.action_log.columns()),
            "action_rng": rng_state(self._action_rng),
            "num_replicas": self.num_replicas,
            "num_envs": self._shards.num_envs,
        }

    def _of_all(self, own: Row) -> StateDict:
        """Return columns [B, ...] as those of all environments."""
        together = map(torch.from_numpy, self._shards.all_together(list(own.values())))
        return dict(zip(own, together, strict=True))

    def _load_rollout_state(self, state: StateDict) -> None:
        """Restore what only makes sense for the same replicas and environments."""
        envs = self._shards.envs
        self.rollout.load_state_dict(state["buffer"], envs)
        pending, log = state["pending"], state["action_log"]
        self._pending = (
            None if pending is None else {name: c.numpy()[envs] for name, c in pending.items()}
        )
        self.action_log.load({name: column.numpy()[envs] for name, column in log.items()})
