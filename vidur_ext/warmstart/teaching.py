"""From demonstrations, new or of a set, to a taught policy in a file, with its curves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ppo_scheduler.files import GrowingFile, disk_errors, write_file
from ppo_scheduler.monitoring.csv_metrics import csv_text
from ppo_scheduler.monitoring.scalars import PatientSink, metrics_disk_errors
from ppo_scheduler.policy.routing_policy import RoutingPolicy, load_policy, save_policy
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.routing.features import observation_schema
from vidur_ext.run_folder import RunFolder
from vidur_ext.warmstart.behaviour_cloning import clone_behaviour
from vidur_ext.warmstart.cost_labels import CostLabels
from vidur_ext.warmstart.cost_learning import Lessons, learn_from_costs
from vidur_ext.warmstart.demonstrations import Demonstrations
from vidur_ext.warmstart.sets import open_set
from vidur_ext.warmstart.taught_policy import Report, TaughtPolicy, Watch
from vidur_ext.warmstart.teachers import collect_demonstrations

_LOG = logging.getLogger("ppo")
_REFUSED = "the history of the warm start was not written", "Free space or rights there"


@contextmanager
def teaching_curves(table: Path | None, events: Path | None) -> Iterator[Watch]:
    """Give a function that records a step; after its call a killed process does not lose it.

    What the disk refuses meanwhile does not end the teaching: it is written when the disk takes it
    again. What it never took is warned of at the end.

    Args:
        table: CSV file to write.
        events: folder for TensorBoard; x is the number of the step.

    Raises:
        UserError: the disk refuses at the beginning.
    """
    sinks: list[PatientSink] = []
    if table is not None:
        sinks.append(PatientSink(_Table(table)))
    if events is not None:
        # TensorBoard takes a second to import: only when it is wanted.
        from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

        sinks.append(PatientSink(TensorBoardSink(events, None)))

    def record(report: Report) -> None:
        for sink in sinks:
            sink.record(report.number, report.scalars())

    yield record
    for sink in sinks:
        sink.close()
        if sink.lost is not None:
            _LOG.warning("%s", sink.lost)


class _Table:
    """A CSV file whose columns are those of the first record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False
        with metrics_disk_errors(path):
            self._file = GrowingFile(path)

    def record(self, step: int, scalars: Mapping[str, float]) -> None:
        rows: list[list[object]] = [] if self._begun else [["step", *scalars]]
        with metrics_disk_errors(self._path):
            self._file.append(csv_text([*rows, [step, *scalars.values()]]).encode())
        self._begun = True

    def close(self) -> None:
        """Nothing is held open."""


def teach(
    config: TrainingConfig,
    folder: RunFolder,
    watch: Watch,
    *,
    demonstrations: Path | None = None,
    initial: Path | None = None,
    also: Sequence[TrainingConfig] = (),
) -> TaughtPolicy:
    """Make ``pretrained_actor.pt`` as ``warmstart.method`` says, and tell how it came about.

    Args:
        watch: is told of every step.
        demonstrations: set to learn from, with costs that of the first round; None collects.
        initial: file of a policy to begin with; with costs it routes the first round as well.
        also: with costs: ``config`` on other clusters, for one policy that serves them all.

    Raises:
        UserError: the set or the policy cannot be used, or the disk refuses.
    """
    schema = observation_schema(config.observation)
    begun, state = None, None
    if initial is not None:
        begun = load_policy(initial, schema)
        state = begun.state_dict()
        _LOG.info("fine-tuning %s", initial)
    if demonstrations is None:
        data = _kept(new_demonstrations(config, _LOG.info, begun), folder)
    else:
        data = _given(config, demonstrations)
    if config.warmstart.method == "imitation":
        taught = clone_behaviour(config, schema, data, watch, initial=state)
    else:
        clusters = [Lessons(config, data)]
        for other in also:
            clusters.append(Lessons(other, new_demonstrations(other, _LOG.info, begun)))
        taught = learn_from_costs(clusters, schema, watch, initial=state)
    steps = [report.to_dict() for report in taught.history]
    document = {"method": config.warmstart.method, "best": taught.best, "history": steps}
    with disk_errors(folder.warm_start, *_REFUSED):
        write_file(folder.warm_start, (json.dumps(document, indent=2) + "\n").encode())
    save_policy(taught.policy, folder.pretrained_actor)
    _LOG.info("step %d is kept: %s", taught.best, folder.pretrained_actor)
    doubt = taught.report.doubt()
    if doubt is not None:
        _LOG.warning("warm start: %s", doubt)
    return taught


def new_demonstrations(
    config: TrainingConfig, report: Callable[[str], None], policy: RoutingPolicy | None = None
) -> Demonstrations:
    """Collect what a warm start begins with: heuristics' choices, or choices priced by look-ahead.

    Args:
        report: is told in words what was collected.
        policy: routes what is priced, if there is one already; look-ahead does without.
    """
    if config.warmstart.method == "imitation":
        return collect_demonstrations(config, report)
    priced = CostLabels(config).collect(0, policy)
    router = "look-ahead" if policy is None else "the policy to fine-tune"
    report(f"{len(priced)} decisions of {router}, with the cost of every choice")
    return priced


def _given(config: TrainingConfig, path: Path) -> Demonstrations:
    one = open_set(path)
    one.check(config)
    demonstrations = one.load()
    _LOG.info(
        "%d demonstrations of the set %s (%s; seed %d, %d replicas, SHA-256 %s)",
        len(demonstrations), path, ", ".join(demonstrations.teachers), one.description.seed,
        one.description.num_replicas, one.description.sha256[:16],
    )  # fmt: skip
    return demonstrations


def _kept(demonstrations: Demonstrations, folder: RunFolder) -> Demonstrations:
    demonstrations.save(folder.demonstrations)
    _LOG.info(
        "%d demonstrations of %s in %s",
        len(demonstrations), ", ".join(demonstrations.teachers), folder.demonstrations,
    )  # fmt: skip
    return demonstrations
