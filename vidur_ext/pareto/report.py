"""The trade-off for people and programs: one page that holds everything, and JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from ppo_scheduler.files import check_place, disk_errors, write_file
from vidur_ext.evaluation.report.page import page_template
from vidur_ext.pareto.front import MOST_TTFT_P99, Front, Tradeoff
from vidur_ext.pareto.plot import draw_plot

_PAGE = "pareto.html"
_REFUSED = "the report cannot be written there", "Choose another place"


def check_places(folder: Path, json_copy: Path | None) -> None:
    """Check before anything is measured that the report can be written.

    Raises:
        UserError: it cannot.
    """
    for place in (folder / _PAGE, json_copy):
        if place is not None:
            with disk_errors(place, *_REFUSED):
                check_place(place)


def write_report(tradeoff: Tradeoff, folder: Path, json_copy: Path | None) -> Path:
    """Write ``pareto.html`` and ``pareto.json``, each whole or not at all; return the page's path.

    Args:
        json_copy: file that gets the JSON as well.

    Raises:
        UserError: a file cannot be written.
    """
    page = folder / _PAGE
    document = json.dumps(tradeoff.to_dict(), indent=2, allow_nan=False, ensure_ascii=False)
    files = {page: render_page(tradeoff)}
    for copy in (folder / "pareto.json", json_copy):
        if copy is not None:
            files[copy] = f"{document}\n"
    for path, text in files.items():
        with disk_errors(path, *_REFUSED):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text.encode())
    return page


def render_page(tradeoff: Tradeoff) -> str:
    """Return the page; it needs no network and no other file."""
    return page_template("vidur_ext.pareto").render(
        headlines=headlines(tradeoff),
        best=tradeoff.best,
        best_heuristic=tradeoff.best_heuristic,
        most=f"{MOST_TTFT_P99:g}",
        plot=base64.b64encode(draw_plot(tradeoff)).decode("ascii"),
        fronts=tradeoff.fronts,
        change=change,
        facts=tradeoff.facts,
    )


def headlines(tradeoff: Tradeoff) -> list[str]:
    """Return which L the rule takes, a sentence for each kind of router."""
    return [_headline(front, tradeoff.best_heuristic) for front in tradeoff.fronts]


def _headline(front: Front, best_heuristic: str) -> str:
    limit = f"{MOST_TTFT_P99:g} times that of {best_heuristic}"
    chosen = next((point for point in front.points if point.within), None)
    if chosen is None:
        return f"{front.router}: no L of the grid keeps p99 TTFT within {limit}."
    return (
        f"{front.router}: L = {chosen.weight:g} is the smallest of the grid whose p99 TTFT is "
        f"within {limit} (x{chosen.ttft_p99:.3f}); mean E2E {change(chosen.e2e)}."
    )


def change(ratio: float) -> str:
    """Return a ratio as a relative change in %."""
    return f"{100 * (ratio - 1):+.1f} %".replace("-", "−")
