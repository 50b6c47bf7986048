"""From demonstrations, new or of a set, to a cloned policy in a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from ppo_scheduler.config.training_config import TrainingConfig
from ppo_scheduler.policy.policy_file import read_policy_state, save_policy
from vidur_ext.env.schema import observation_schema
from vidur_ext.warmstart.behaviour_cloning import CloningResult, EpochReport, clone_behaviour
from vidur_ext.warmstart.collect import collect_demonstrations
from vidur_ext.warmstart.demonstration_set import open_set
from vidur_ext.warmstart.demonstrations import Demonstrations

_LOG = logging.getLogger("ppo")


def obtain_demonstrations(
    config: TrainingConfig, given: Path | None, keep: Path, metrics_dir: Path
) -> Demonstrations:
    """Return the demonstrations of a set, or collect new ones and keep them in a file.

    Args:
        given: folder of a set; None collects.
        keep: file for what is collected.
        metrics_dir: where Vidur may write its config.

    Raises:
        UserError: the set is damaged or does not fit the config.
    """
    if given is not None:
        one = open_set(given)
        one.check(config)
        demonstrations = one.load()
        _LOG.info(
            "%d demonstrations of the set %s (%s; seed %d, %d replicas, SHA-256 %s)",
            len(demonstrations), given, ", ".join(demonstrations.teachers), one.description.seed,
            one.description.num_replicas, one.description.sha256[:16],
        )  # fmt: skip
        return demonstrations
    _LOG.info("collecting demonstrations of %s", ", ".join(config.warmstart.teachers))
    demonstrations = collect_demonstrations(config, str(metrics_dir), _LOG.info)
    demonstrations.save(keep)
    _LOG.info("%d demonstrations in %s", len(demonstrations), keep)
    return demonstrations


def clone_to_file(
    config: TrainingConfig,
    demonstrations: Demonstrations,
    initial: Path | None,
    actor: Path,
    history: Path,
    watch: Callable[[EpochReport], None],
) -> CloningResult:
    """Clone, and write the policy and how it came about.

    Args:
        initial: file of a policy to fine-tune.
        watch: is told of every epoch.
    """
    state = None
    if initial is not None:
        state = read_policy_state(initial)
        _LOG.info("fine-tuning %s", initial)
    schema = observation_schema(config.observation)
    result = clone_behaviour(config, schema, demonstrations, watch, initial=state)
    epochs = [vars(epoch) for epoch in result.history]
    history.write_text(
        json.dumps({"best_epoch": result.best_epoch, "history": epochs}, indent=2) + "\n",
        encoding="utf-8",
    )
    save_policy(result.policy, actor)
    _LOG.info(
        "cloned in %d epochs; held-out agreement: %s",
        len(result.history), describe_accuracy(result.best),
    )  # fmt: skip
    return result


def describe_accuracy(epoch: EpochReport) -> str:
    """Return the held-out accuracy per teacher in words."""
    return ", ".join(f"{name} {share:.1%}" for name, share in epoch.accuracy.items())
