"""One page that holds everything: tables and plot; it needs no network and no other file."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined

from vidur_ext.suite.report import tables
from vidur_ext.suite.results import SuiteResult


def render_page(result: SuiteResult, plot: bytes) -> str:
    """Return the page.

    Args:
        plot: PNG file, as ``draw_plot`` returns it.
    """
    environment = Environment(
        loader=PackageLoader("vidur_ext.suite.report", "."),
        autoescape=True,  # nothing that a user names can become markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        headline=tables.headline(result),
        introduction=tables.introduction(result),
        routers=tables.routers_table(result),
        notes=tables.notes(result),
        plot=base64.b64encode(plot).decode("ascii"),
        scenarios=[
            {
                "name": scenario.name,
                "description": tables.description(scenario),
                "table": tables.schedulers_table(scenario),
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
