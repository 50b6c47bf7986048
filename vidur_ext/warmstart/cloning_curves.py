"""The curves of a cloning, written epoch by epoch: CSV and TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ppo_scheduler.checkpoint.disk import disk_errors
from vidur_ext.warmstart.behaviour_cloning import EpochReport

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
