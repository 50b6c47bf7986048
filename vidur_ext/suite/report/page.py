"""One page that holds everything: tables and plot; it needs no network and no other file."""

from __future__ import annotations

import base64

from vidur_ext.evaluation.report.page import page_template
from vidur_ext.suite.report import tables
from vidur_ext.suite.results import SuiteResult


def render_page(result: SuiteResult, plot: bytes) -> str:
    """Return the page.

    Args:
        plot: PNG file, as ``draw_plot`` returns it.
    """
    return page_template("vidur_ext.suite.report").render(
        headline=tables.headline(result),
        introduction=tables.introduction(result),
        routers=tables.routers_table(result),
        notes=tables.notes(result),
        plot=base64.b64encode(plot).decode("ascii"),
        scenarios=[
            {
                "name": scenario.name,
                "description": tables.description(scenario),
                "tables": [
                    tables.schedulers_table(scenario),
                    *([tables.tuning_table(scenario)] if scenario.tuning else []),
                ],
            }
            for scenario in result.scenarios
        ],
        facts={
            "Training seeds": str(result.seeds),
            **{
                name: text
                for name, text in result.scenarios[0].facts.items()
                if name.startswith("Version of ")
            },
        },
    )
