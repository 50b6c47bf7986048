"""What look-ahead leaves out of the costs that PPO learns from, learned before PPO begins."""

from __future__ import annotations

import logging
from fnmatch import fnmatchcase

from ppo_scheduler.ppo.learner import Learner
from ppo_scheduler.seeding import Purpose, torch_seed
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.training.branches import BranchingSimulations

_LOG = logging.getLogger("ppo")
_LEARNED_FOR = ("cluster.*", "simulation.*", "workload.*", "inputs.*", "lookahead.*")


def changes_terminal_value(key: str) -> bool:
    """Return whether what was learned before a change of ``key`` is wrong after it."""
    return any(fnmatchcase(key, pattern) for pattern in _LEARNED_FOR)


def learn_terminal_value(config: TrainingConfig, learner: Learner) -> None:
    """Let the learner correct the costs of choices by what later requests add under its policy.

    If nothing was learned, costs stay as they are, and the log says so.
    """
    section = config.terminal_value
    _LOG.info(
        "simulating %d decisions with each of %d choices, and %d requests per replica after them",
        section.decisions, min(section.choices, config.cluster.num_replicas), section.horizon,
    )  # fmt: skip
    value = learner.new_terminal_value()
    branches = BranchingSimulations(config).collect(learner.policy)
    seed = torch_seed(config.training.seed, Purpose.TERMINAL_VALUE)
    explained = value.learn(branches, section.steps, seed)
    learner.terminal_value = value if explained > 0.0 else None
    _LOG.info(
        "what look-ahead leaves out of costs: %.1f %% of its variance is foreseen%s",
        100.0 * explained, "" if explained > 0.0 else "; costs stay as they are",
    )  # fmt: skip
