"""How good the policy is by now, on workloads that nothing else sees, and which was the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

import numpy as np

from ppo_scheduler.observation import Floats
from ppo_scheduler.parallel.shards import OneProcess, Processes
from ppo_scheduler.policy.routing_policy import RoutingPolicy
from ppo_scheduler.state import StateDict, snapshot
from vidur_ext.config.sections import ORACLES, PLANNERS, SCHEDULERS, USUAL_SCHEDULERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.metrics import LEARNED
from vidur_ext.evaluation.run_result import RunResult
from vidur_ext.evaluation.runner import runs_on_engine, runs_on_vidur
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.workload.run_workloads import validation_table

PLANNER = "lookahead"
_ALONE = OneProcess()

_SCORED_WITH = (
    "cluster.*",
    "simulation.*",
    "workload.*",
    "inputs.*",
    "observation.*",
    "lookahead.ttft_weight",
    "checkpointing.validation_seeds",
    "checkpointing.validation_requests",
)


def changes_scores(key: str) -> bool:
    """Return whether scores from before and after a change of ``key`` cannot be compared."""
    return any(fnmatchcase(key, pattern) for pattern in _SCORED_WITH)


@dataclass(frozen=True)
class Score:
    """A policy on the validation workloads: mean latencies of all requests [s].

    global_step, updates: of the training when it was validated.
    """

    global_step: int
    updates: int
    e2e_s: float
    ttft_s: float

    def objective_s(self, ttft_weight: float) -> float:
        """Return what training makes small: mean E2E plus weighted mean TTFT."""
        return self.e2e_s + ttft_weight * self.ttft_s

    def name(self) -> str:
        """Return what the policy is called."""
        return f"step {self.global_step}" if self.global_step else "the warm start"


class Validation:
    """Runs the greedy policy over ``validation_seeds`` workloads of ``validation_requests`` each.

    The engine is the training's: on the compiled one all workloads run side by side. Processes that
    train together share them.
    """

    def __init__(self, config: TrainingConfig, processes: Processes = _ALONE) -> None:
        """Draw the workloads.

        Raises:
            UserError: the trace is too short.
        """
        self._config = config
        seeds = range(config.checkpointing.validation_seeds)
        self._workloads = {seed: validation_table(config, seed) for seed in seeds}
        self._processes = processes
        compiled = config.simulation.engine == "compiled"
        self._cluster = engine_cluster(config) if compiled else None

    def score(self, policy: RoutingPolicy, global_step: int, updates: int) -> Score:
        """Return how the policy does; the training is left untouched."""
        rank, count = self._processes.rank, self._processes.count
        seeds = range(
            rank * len(self._workloads) // count, (rank + 1) * len(self._workloads) // count
        )
        own = {seed: self._workloads[seed] for seed in seeds}
        runs: Sequence[RunResult] = []
        if own:
            runs = (
                runs_on_vidur(self._config, LEARNED, policy, own)
                if self._cluster is None
                else runs_on_engine(self._config, self._cluster, LEARNED, policy, own)
            )
        means = np.concatenate(self._processes.gather(_means(runs)))
        return _score(means, global_step, updates)

    def best_heuristic(self) -> tuple[str, Score] | None:
        """Return which heuristic does best here, and how; None on Vidur: it would take minutes.

        Planners, which take seconds, and what knows output lengths are no rivals.
        """
        if self._cluster is None:
            return None
        knows_nothing = self._config.observation.prefix_knowledge == "none"
        weight = self._config.lookahead.ttft_weight
        scores = {
            name: self._score_of(name)
            for name in (USUAL_SCHEDULERS if knows_nothing else SCHEDULERS)
            if name not in (*PLANNERS, *ORACLES)
        }
        return min(scores.items(), key=lambda item: item[1].objective_s(weight))

    def look_ahead(self) -> Score | None:
        """Return how the planner does that teaches the policy; None where it cannot be measured.

        That is on Vidur, where it would take minutes, and with delayed signals, where it cannot
        plan.
        """
        if self._cluster is None or self._config.observation.is_late:
            return None
        return self._score_of(PLANNER)

    def _score_of(self, name: str) -> Score:
        assert self._cluster is not None, "heuristics are validated on the compiled engine"
        return _score(
            _means(runs_on_engine(self._config, self._cluster, name, None, self._workloads))
        )


def _means(runs: Sequence[RunResult]) -> Floats:
    """Return the mean latencies of each run [N, 2] [s]: end to end, and to the first token."""
    return np.array(
        [
            [(end - run.arrived_at).mean() for end in (run.completed_at, run.prefill_completed_at)]
            for run in runs
        ]
    ).reshape(len(runs), 2)


def _score(means: Floats, global_step: int = 0, updates: int = 0) -> Score:
    """Return the score of runs that are of one length."""
    e2e, ttft = means.mean(axis=0).tolist()
    return Score(global_step, updates, e2e, ttft)


class Candidates:
    """All scores, and the best policy so far: what a training ends with.

    Args:
        ttft_weight: what decides beside the mean E2E.
    """

    def __init__(self, ttft_weight: float) -> None:
        self.scores: list[Score] = []
        self.best: Score | None = None
        self._ttft_weight = ttft_weight
        self._policy: StateDict | None = None

    def consider(self, score: Score, policy: RoutingPolicy) -> bool:
        """Take a validated policy; return whether it is the best so far. The first of equals is."""
        self.scores.append(score)
        better = self.best is None or self.objective_s(score) < self.objective_s(self.best)
        if better:
            self.best, self._policy = score, snapshot(policy.state_dict())
        return better

    def objective_s(self, score: Score) -> float:
        """Return what is compared."""
        return score.objective_s(self._ttft_weight)

    def policy(self) -> StateDict | None:
        """Return the state of the best policy; None if none was validated."""
        return self._policy

    def clear(self) -> None:
        """Forget what was validated on other workloads."""
        self.scores, self.best, self._policy = [], None, None

    def to_dict(self, rivals: Mapping[str, Score]) -> dict[str, object]:
        """Return plain Python values, fit for JSON.

        Args:
            rivals: how others do on the same workloads, by name.
        """
        return {
            "ttft_weight": self._ttft_weight,
            "chosen": None if self.best is None else self._described(self.best),
            "scores": [self._described(score) for score in self.scores],
            "rivals": [
                {
                    "name": name,
                    "e2e_s": score.e2e_s,
                    "ttft_s": score.ttft_s,
                    "objective_s": self.objective_s(score),
                }
                for name, score in rivals.items()
            ],
        }

    def _described(self, score: Score) -> dict[str, object]:
        return {"name": score.name(), **asdict(score), "objective_s": self.objective_s(score)}

    def state_dict(self) -> StateDict:
        return {
            "scores": [asdict(score) for score in self.scores],
            "best": None if self.best is None else asdict(self.best),
            "policy": self._policy,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self.scores = [Score(**score) for score in state["scores"]]
        self.best = None if state["best"] is None else Score(**state["best"])
        self._policy = state["policy"]
