"""From demonstrations, new or of a set, to a cloned policy in a file, with its curves."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ppo_scheduler.files import disk_errors, write_file
from ppo_scheduler.policy.routing_policy import read_policy_state, save_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.warmstart.behaviour_cloning import CloningResult, EpochReport, clone_behaviour
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.sets import open_set
from vidur_ext.warmstart.teachers import collect_demonstrations

_REFUSED = "the history of the cloning was not written", "Free space or rights there"


@contextmanager
def cloning_curves(
    table: Path | None, events: Path | None, teachers: Sequence[str]
) -> Iterator[Callable[[EpochReport], None]]:
    """Give a function that records an epoch; after its call a killed process does not lose it.

    Args:
        table: CSV file to write.
        events: folder for TensorBoard; x is the epoch.
        teachers: their accuracies are the last columns.

    Raises:
        UserError: the disk refuses.
    """
    writers: list[Callable[[int, Mapping[str, float]], None]] = []
    with ExitStack() as stack:
        if table is not None:
            writers.append(stack.enter_context(_csv_writer(table, teachers)))
        if events is not None:
            # TensorBoard takes a second to import: only when it is wanted.
            from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

            sink = TensorBoardSink(events, None)
            stack.callback(sink.close)
            writers.append(sink.record)

        def record(epoch: EpochReport) -> None:
            for write in writers:
                write(epoch.epoch, scalars(epoch))

        yield record


def scalars(epoch: EpochReport) -> dict[str, float]:
    """Return the numbers of an epoch by their names in TensorBoard and CSV."""
    return {
        "BehaviourCloning/TrainLoss": epoch.train_loss,
        "BehaviourCloning/HoldoutLoss": epoch.holdout_loss,
        **{_accuracy(name): share for name, share in epoch.accuracy.items()},
    }


@contextmanager
def _csv_writer(
    path: Path, teachers: Sequence[str]
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    columns = ["BehaviourCloning/TrainLoss", "BehaviourCloning/HoldoutLoss"]
    columns += [_accuracy(name) for name in teachers]
    with disk_errors(path, *_REFUSED):
        file = path.open("w", newline="", encoding="utf-8")
    with file:
        writer = csv.DictWriter(file, ["epoch", *columns], lineterminator="\n")

        def write(epoch: int, values: Mapping[str, float]) -> None:
            with disk_errors(path, *_REFUSED):
                writer.writerow({"epoch": epoch, **values})
                file.flush()

        writer.writeheader()
        yield write


def _accuracy(teacher: str) -> str:
    return f"BehaviourCloning/Accuracy_{teacher}"


_LOG = logging.getLogger("ppo")


def obtain_demonstrations(config: TrainingConfig, given: Path | None, keep: Path) -> Demonstrations:
    """Return the demonstrations of a set, or collect new ones and keep them in a file.

    Args:
        given: folder of a set; None collects.
        keep: file for what is collected.

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
    demonstrations = collect_demonstrations(config, _LOG.info)
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
    text = json.dumps({"best_epoch": result.best_epoch, "history": epochs}, indent=2) + "\n"
    with disk_errors(history, *_REFUSED):
        write_file(history, text.encode())
    save_policy(result.policy, actor)
    _LOG.info(
        "cloned in %d epochs; held-out agreement: %s",
        len(result.history), describe_accuracy(result.best),
    )  # fmt: skip
    return result


def describe_accuracy(epoch: EpochReport) -> str:
    """Return the held-out accuracy per teacher in words."""
    return ", ".join(f"{name} {share:.1%}" for name, share in epoch.accuracy.items())
