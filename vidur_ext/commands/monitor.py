"""``vidur-ppo monitor``: how the newest training is going, or another one."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ppo_scheduler.errors import UserError
from vidur_ext.commands.options import Config, Json, output_root
from vidur_ext.commands.printing import Document, print_json

if TYPE_CHECKING:
    from vidur_ext.run_folder import RunFolder
    from vidur_ext.runs.status import RunStatus

_METRICS = {
    "reward": "Rollout/RewardMean",
    "latency p50": "tail_latency/latency_p50",
    "latency p99": "tail_latency/latency_p99",
}
_METRICS_VERBOSE = {
    **_METRICS,
    "TTFT p99": "tail_latency/ttft_p99",
    "regret": "Rollout/Regret",
    "explained variance": "Training/ExplainedVariance",
    "entropy": "Training/Entropy",
    "approximate KL": "Training/ApproxKL",
    "learning rate": "Training/LearningRate",
    "temperature": "Control/Temperature",
    "validation latency": "Validation/MeanLatency",
}
_SECONDS = ("latency p50", "latency p99", "TTFT p99", "validation latency")
_STYLES = {"running": "green", "comparing": "green", "finished": "green", "stopped": "yellow"}
_LOG_LINES = 10


def monitor(
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="Run folder, training_progress.json, or a folder to take the newest run of "
            "(default: training.output_root of --config, with all below it)",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="More metrics, the chunks, the log's end")
    ] = False,
    watch: Annotated[
        float | None,
        typer.Option("-w", "--watch", metavar="SECONDS", min=0.1, help="Look again and again"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how a running or ended training is going. Nothing is changed."""
    from vidur_ext.runs.status import find_run, status_of

    if as_json and watch is not None:
        raise UserError("--json prints once: leave out --watch, or ask again yourself")
    run = find_run(place or output_root(config))
    if as_json:
        print_json(document(status_of(run, _now())))
    elif watch is None:
        Console().print(_page(run, verbose)[1])
    else:
        _watch(run, verbose, watch)


def document(status: RunStatus) -> Document:
    """Return a status as JSON values."""
    checkpoint, progress = status.checkpoint, status.progress
    return {
        "run": str(status.run),
        "state": status.state,
        "last_line": status.last_line,
        "decisions": status.decisions,
        "total_requests": status.total,
        "decisions_per_second": status.speed,
        "eta_s": status.eta_s,
        "checkpoint": None
        if checkpoint is None
        else {
            "path": str(checkpoint.path),
            "ppo_step": checkpoint.manifest.ppo_step,
            "global_step": checkpoint.manifest.global_step,
            "reason": checkpoint.manifest.reason,
            "age_s": checkpoint.age_s,
        },
        "progress": None if progress is None else progress.model_dump(mode="json"),
        "metrics": status.metrics,
    }


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _watch(run: RunFolder, verbose: bool, seconds: float) -> None:
    """Draw again until the training has ended, or Ctrl-C."""
    from ppo_scheduler.errors import Interrupted

    status, page = _page(run, verbose)
    try:
        with Live(page, console=Console(), auto_refresh=False) as live:
            while status.alive:
                time.sleep(seconds)
                status, page = _page(run, verbose)
                live.update(page, refresh=True)
    except Interrupted as stop:
        raise stop.saying("the training was only watched") from None


def _page(run: RunFolder, verbose: bool) -> tuple[RunStatus, RenderableType]:
    from vidur_ext.runs.status import status_of

    status = status_of(run, _now())
    parts: list[RenderableType] = [_summary(status, _METRICS_VERBOSE if verbose else _METRICS)]
    if verbose and status.progress is not None:
        parts.append(_chunks(status))
    if verbose and run.log.exists():
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
        parts.append(Text("\n".join(["", *lines[-_LOG_LINES:]]), style="dim"))
    return status, Group(*parts)


def _summary(status: RunStatus, shown: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("run", Text(str(status.run), overflow="fold"))
    table.add_row("state", Text(status.state, style=_STYLES.get(status.state, "red")))
    if status.alive and status.last_line is not None:
        table.add_row("now", Text(status.last_line, overflow="fold"))
    table.add_row("decisions", f"{status.decisions} of {status.total} ({_share(status)})")
    if status.progress is not None:
        done, planned = status.progress.completed_chunks, status.progress.total_chunks
        table.add_row("chunks", f"{done} of {planned}")
    if status.speed is not None:
        table.add_row("speed", f"{status.speed:.0f} decisions/s")
    if status.eta_s is not None:
        table.add_row("left", _duration(status.eta_s))
    if status.checkpoint is None:
        table.add_row("checkpoint", "none")
    else:
        said = status.checkpoint.manifest
        table.add_row("checkpoint", Text(str(status.checkpoint.path), overflow="fold"))
        age = _duration(status.checkpoint.age_s)
        made = f"step {said.ppo_step}, {said.global_step} decisions"
        table.add_row("", f"{made}, {age} ago, reason: {said.reason}")
    for name, scalar in shown.items():
        if scalar in status.metrics:
            unit = " s" if name in _SECONDS else ""
            table.add_row(name, f"{status.metrics[scalar]:.4g}{unit}")
    if status.progress is not None and status.progress.error_message:
        table.add_row("error", Text(status.progress.error_message, style="red", overflow="fold"))
    return table


def _chunks(status: RunStatus) -> Table:
    assert status.progress is not None
    table = Table("chunk", "status", "requests", "log", title="chunks", title_justify="left")
    for chunk in status.progress.chunks:
        log = Text(Path(chunk.log_file).name, overflow="fold")
        table.add_row(str(chunk.chunk_id), chunk.status, str(chunk.requests), log)
    return table


def _share(status: RunStatus) -> str:
    return f"{status.decisions / status.total:.0%}"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))
