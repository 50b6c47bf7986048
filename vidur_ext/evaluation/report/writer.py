"""Writing the report: JSON for programs, PNG for slides, one HTML page for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppo_scheduler.errors import UserError
from ppo_scheduler.files import write_file
from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.importance import Importance
from vidur_ext.evaluation.load_sweep import LoadSweep
from vidur_ext.evaluation.report.head import Head
from vidur_ext.evaluation.report.page import render_page
from vidur_ext.evaluation.report.plots.drawing import draw_plots
from vidur_ext.evaluation.report.plots.learning import NOT_VALIDATED, Learning
from vidur_ext.evaluation.run_result import RunResult


@dataclass(frozen=True)
class ReportPaths:
    """Where the report lies."""

    json: Path
    html: Path
    plots: tuple[Path, ...]


def write_report(
    comparison: Comparison,
    runs: Sequence[RunResult],
    output_dir: Path,
    facts: Mapping[str, str],
    engines: EngineComparison | None = None,
    head: Head | None = None,
    learning: Learning = NOT_VALIDATED,
    importance: Importance | None = None,
    sweep: LoadSweep | None = None,
) -> ReportPaths:
    """Write ``comparison.json``, ``comparison.html`` and the plots to ``output_dir``.

    Every file appears whole or not at all; files of an earlier report are replaced. Nothing is
    written before everything is rendered.

    Args:
        runs: the runs that ``comparison`` was made of; the distributions are drawn from them.
        facts: shown on the page and kept in the JSON: workload, config digest, versions.
        engines: runs that both engines made, if there are any.
        head: of the run that the report is about, if it is about one.
        learning: how that run's training was validated, if it was.
        importance: what the policy under test looks at, if that was measured.
        sweep: the comparison at several loads, if it was made; it gets a ``loads.csv`` too.

    Raises:
        UserError: ``output_dir`` cannot be created or written.
    """
    plots = draw_plots(comparison, runs, learning, importance, sweep)
    page = render_page(comparison, plots, facts, engines, head, sweep)
    document = {**comparison.to_dict(), "facts": dict(facts)}
    if engines is not None:
        document["engines"] = engines.to_dict()
    if importance is not None:
        document["importance"] = importance.to_dict()
    if sweep is not None:
        document["load_sweep"] = sweep.to_dict()
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    paths = ReportPaths(
        json=output_dir / "comparison.json",
        html=output_dir / "comparison.html",
        plots=tuple(output_dir / name for name in plots),
    )
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for path, png in zip(paths.plots, plots.values(), strict=True):
            write_file(path, png)
        if sweep is not None:
            write_file(output_dir / "loads.csv", _load_csv(sweep).encode("utf-8"))
        write_file(paths.json, text.encode("utf-8"))
        write_file(paths.html, page.encode("utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot write the report to {output_dir}: {error.strerror}; "
            "choose a folder that can be written"
        ) from error
    return paths


def _load_csv(sweep: LoadSweep) -> str:
    """Return a line per load and scheduler; what is not known is empty."""
    text = io.StringIO()
    rows = [row for point in sweep.points for row in point.rows()]
    table = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
