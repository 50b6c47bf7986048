"""Everything that watches a training, opened and closed together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ppo_scheduler.config.learner_sections import LearnerConfig
from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.monitoring.csv_metrics import CsvSink
from ppo_scheduler.monitoring.progress_bar import ProgressBar
from ppo_scheduler.monitoring.run_log import terminal
from ppo_scheduler.monitoring.scalars import FanOut, MetricsHistory, MetricsSink, scalar_names
from ppo_scheduler.monitoring.tail_latency import TailLatencyTracker
from ppo_scheduler.observation import Floats
from ppo_scheduler.parallel.shards import Processes
from ppo_scheduler.state import StateDict
from vidur_ext.routing.components import COMPONENT_NAMES
from vidur_ext.run_folder import RunFolder

_LOG = logging.getLogger("ppo")


def check_monitoring(configs: Iterable[LearnerConfig]) -> None:
    """Check that trainings can send their scalars where they are to.

    Raises:
        UserError: W&B is not installed, cannot be reached, or there is no login for it.
    """
    modes = {config.monitoring.wandb for config in configs} - {"off"}
    if modes:
        from ppo_scheduler.monitoring.wandb_run import check_online  # refuses without W&B

        if "online" in modes:
            check_online()


class Instruments:
    """The learner's metrics sink: adds what only the simulation knows, then fans out.

    What the disk refuses does not end the training: it is written when the disk takes it again, and
    the history in the checkpoints keeps it.
    """

    def __init__(
        self,
        sink: FanOut,
        tail: TailLatencyTracker,
        progress: ProgressBar,
        history: MetricsHistory,
        wandb_run: str | None = None,
        *,
        processes: Processes,
    ) -> None:
        self.tail = tail
        self._processes = processes
        self._completed: list[Floats] = []
        """Of this process's environments, step by step, since they were last put together."""
        self.scales = StageScales(0)
        self.checkpoint_seconds: float | None = None
        self._sink = sink
        self._progress = progress
        self._history = history
        self._wandb_run = wandb_run

    def begin(self, global_step: int) -> None:
        """Decisions are made from here on."""
        self._progress.begin(global_step)

    def tick(self, global_step: int) -> None:
        """Show between two updates that decisions are made."""
        self._progress.tick(global_step)

    def complete(self, latencies: Floats) -> None:
        """Take the requests [n, 2] that a step has completed: times end to end and to first token.

        All processes take every step; one that is alone looks at them at once.
        """
        if self._processes.count == 1:
            self._see(latencies)
        else:
            self._completed.append(latencies.copy())

    def _see(self, latencies: Floats) -> None:
        alert = self.tail.add(latencies)
        if alert is not None:
            _LOG.warning(alert)

    def _settle(self) -> None:
        """See all environments' completions, one step's after the other's."""
        own, self._completed = self._completed, []
        if not own:  # in any process
            return
        processes = self._processes
        counts = processes.gather(
            np.array([len(step) for step in own]), [len(own)] * processes.count
        )
        every = processes.gather(np.concatenate(own), [int(count.sum()) for count in counts])
        steps = [
            np.split(latencies, np.cumsum(count)[:-1])
            for latencies, count in zip(every, counts, strict=True)
        ]
        for step in zip(*steps, strict=True):
            self._see(np.concatenate(step))

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self._settle()
        self._record(global_step, {**scalars, **self._surroundings()})
        self._progress.update(global_step, scalars["Rollout/RewardMean"], self.tail.mean_latency_s)

    def record_validation(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self._record(global_step, scalars)

    def record_end(self, global_step: int) -> None:
        """Mark the end of training: the last point of every curve is the last decision."""
        self._settle()
        self._record(global_step, self._surroundings())
        self._progress.finish(global_step)

    def _record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self._history.append(global_step, scalars)
        self._sink.record(global_step, scalars)

    def _surroundings(self) -> dict[str, float]:
        """Return what only the simulation and the session know."""
        scalars = {
            **self.tail.scalars(),
            "curriculum/Stage": float(self.scales.index),
            "curriculum/QpsScale": self.scales.qps_scale,
            "curriculum/LatencyThresholdScale": self.scales.latency_threshold_scale,
            "curriculum/PenaltyScale": self.scales.penalty_scale,
        }
        if self.checkpoint_seconds is not None:
            scalars["Speed/CheckpointSeconds"] = self.checkpoint_seconds
        return scalars

    def raise_losses(self) -> None:
        """End a training whose metrics were not all written with an error.

        Raises:
            UserError: naming how many were not, and why.
        """
        self._sink.raise_losses()

    def state_dict(self) -> StateDict:
        """Return the state; where several processes train, all of them ask for it together."""
        self._settle()
        return {
            "tail": self.tail.state_dict(),
            "history": self._history.state_dict(),
            "wandb_run": self._wandb_run,
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Restore what goes on; history and W&B run were given when the sinks were opened."""
        self.tail.load_state_dict(state["tail"])


def unseen_instruments(
    config: LearnerConfig, num_replicas: int, processes: Processes
) -> Instruments:
    """Return those of a process that helps another one to train: nobody sees what they show."""
    monitoring = config.monitoring
    return Instruments(
        FanOut([]),
        TailLatencyTracker(monitoring.tail_window, monitoring.tail_alert_s),
        ProgressBar(config.training.total_requests, terminal(), enabled=False),
        MetricsHistory(scalar_names(num_replicas, COMPONENT_NAMES)),
        processes=processes,
    )


@contextmanager
def open_instruments(
    config: LearnerConfig,
    folder: RunFolder,
    num_replicas: int,
    resume_step: int | None,
    saved: StateDict | None,
    *,
    same_run: bool,
    processes: Processes,
) -> Iterator[Instruments]:
    """Open TensorBoard, CSV, W&B and progress as configured; all are closed at the end.

    Args:
        resume_step: ``global_step`` that a resume continues from; later points are dropped.
        saved: state of the instruments in the resumed checkpoint.
        same_run: the resumed training goes on in its run; False is a fork, or a new training.
    """
    monitoring = config.monitoring
    columns = scalar_names(num_replicas, COMPONENT_NAMES)
    history = MetricsHistory(columns)
    if saved is not None and saved["history"] is not None:
        history.load_state_dict(saved["history"])
    sinks: list[MetricsSink] = []
    wandb_run: str | None = saved["wandb_run"] if saved is not None and same_run else None
    if monitoring.tensorboard:
        # TensorBoard takes a second to import: only when it is wanted.
        from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(folder.tensorboard, resume_step, history.rows()))
    if monitoring.csv:
        table = folder.metrics / "training.csv"
        sinks.append(CsvSink(table, columns, resume_step, history.rows()))
    if monitoring.wandb != "off":
        from ppo_scheduler.monitoring.wandb_run import WandbSink

        run_id = monitoring.wandb_id or wandb_run
        run = WandbSink(
            folder.path,
            mode=monitoring.wandb,
            project=monitoring.wandb_project,
            name=monitoring.wandb_name or config.training.exp_name,
            group=monitoring.wandb_group,
            tags=monitoring.wandb_tags,
            run_id=run_id,
            history=() if run_id is not None and run_id == wandb_run else history.rows(),
        )
        wandb_run = run.run_id
        sinks.append(run)
    tail = TailLatencyTracker(monitoring.tail_window, monitoring.tail_alert_s)
    sink = FanOut(sinks)
    total = config.training.total_requests
    with ProgressBar(total, terminal(), enabled=monitoring.progress_bar) as progress:
        try:
            yield Instruments(sink, tail, progress, history, wandb_run, processes=processes)
        finally:
            sink.close()
