"""Everything that watches a training, opened and closed together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ppo_scheduler.config.training_config import LearnerConfig
from ppo_scheduler.control.curriculum import StageScales
from ppo_scheduler.monitoring.csv_metrics import CsvSink
from ppo_scheduler.monitoring.names import scalar_names
from ppo_scheduler.monitoring.progress_bar import TrainingProgress
from ppo_scheduler.monitoring.sink import FanOut, MetricsSink
from ppo_scheduler.monitoring.tail_latency import TailLatencyTracker
from ppo_scheduler.monitoring.terminal import terminal
from ppo_scheduler.state import StateDict
from vidur_ext.env.reward import COMPONENTS
from vidur_ext.training.run_folder import RunFolder


class Instruments:
    """The learner's metrics sink: adds what only the simulation knows, then fans out."""

    def __init__(
        self, sink: MetricsSink, tail: TailLatencyTracker, progress: TrainingProgress
    ) -> None:
        self.tail = tail
        self.scales = StageScales(0)
        self.checkpoint_seconds: float | None = None
        self._sink = sink
        self._progress = progress

    def record(self, global_step: int, scalars: Mapping[str, float]) -> None:
        self._sink.record(global_step, {**scalars, **self._surroundings()})
        self._progress.update(global_step, scalars["Rollout/RewardMean"], self.tail.mean_latency_s)

    def record_end(self, global_step: int) -> None:
        """Mark the end of training: the last point of every curve is the last decision."""
        self._sink.record(global_step, self._surroundings())

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

    def close(self) -> None:
        self._sink.close()

    def state_dict(self) -> StateDict:
        return {"tail": self.tail.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        self.tail.load_state_dict(state["tail"])


@contextmanager
def open_instruments(
    config: LearnerConfig, folder: RunFolder, num_replicas: int, resume_step: int | None
) -> Iterator[Instruments]:
    """Open TensorBoard, CSV and progress as configured; all are closed at the end.

    Args:
        resume_step: ``global_step`` that a resume continues from; later points are dropped.
    """
    monitoring = config.monitoring
    sinks: list[MetricsSink] = []
    if monitoring.tensorboard:
        # TensorBoard takes a second to import: only when it is wanted.
        from ppo_scheduler.monitoring.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(folder.tensorboard, resume_step))
    if monitoring.csv:
        columns = scalar_names(num_replicas, COMPONENTS)
        sinks.append(CsvSink(folder.metrics / "training.csv", columns, resume_step))
    tail = TailLatencyTracker(monitoring.tail_window, monitoring.tail_alert_s)
    console = terminal()
    total = config.training.total_requests
    with TrainingProgress(total, console, enabled=monitoring.progress_bar) as progress:
        instruments = Instruments(FanOut(sinks), tail, progress)
        try:
            yield instruments
        finally:
            instruments.close()
