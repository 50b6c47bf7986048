"""One page that holds everything: tables, plots, facts; it needs no network and no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from string import Template

from vidur_ext.evaluation.comparison import Comparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.report import engine_wording, tables, wording

_CAPTIONS = {
    "e2e.png": "End-to-end latency with 95 % intervals.",
    "ttft.png": "Time to first token with 95 % intervals.",
    "slo_attainment.png": "Requests within both objectives with 95 % intervals.",
    "latency_cdf.png": "Distributions over the counted requests; controls may leave the picture.",
    "replica_shares.png": "Requests per replica.",
}


_ENGINES_NOTE = (
    "All figures above are Vidur's. Here are the same runs on both engines. Latencies are those of "
    "the counted requests; differences are taken over all requests, the largest one is relative, "
    "of a completion time. Speeds are per second of real time; heuristics route inside compiled "
    "code, policies do not."
)


def render_page(
    comparison: Comparison,
    plots: Mapping[str, bytes],
    facts: Mapping[str, str],
    engines: EngineComparison | None = None,
) -> str:
    """Return the page.

    Args:
        plots: PNG files by file name, as ``draw_plots`` returns them.
        facts: what the reader must know about the run: workload, cluster, config digest, versions.
        engines: the same runs on both engines, if they were made.
    """
    template = files("vidur_ext.evaluation.report").joinpath("page.html")
    return Template(template.read_text(encoding="utf-8")).substitute(
        summary=_summary(comparison),
        baseline=escape(comparison.baseline),
        latency=tables.latency_table(comparison),
        differences=tables.baseline_table(comparison),
        learned=tables.learned_table(comparison),
        service=tables.service_table(comparison),
        plots="\n".join(_figure(name, png) for name, png in plots.items()),
        seeds=tables.seed_table(comparison),
        engines="" if engines is None else _engines(comparison, engines),
        facts=tables.facts_table(comparison, facts),
    )


def _summary(comparison: Comparison) -> str:
    paragraphs = [f'<p class="headline">{escape(wording.headline(comparison))}</p>']
    paragraphs += [_note(note) for note in wording.notes(comparison)]
    return "\n".join(paragraphs)


def _engines(comparison: Comparison, engines: EngineComparison) -> str:
    notes = [
        engine_wording.engine_line(engines),
        *engine_wording.engine_notes(engines),
        _ENGINES_NOTE,
    ]
    return "\n".join(
        [
            "<h2>Vidur and the compiled engine</h2>",
            *(_note(note) for note in notes),
            tables.engine_table(comparison, engines),
        ]
    )


def _note(text: str) -> str:
    kind = "note warning" if text.startswith(wording.WARNING) else "note"
    return f'<p class="{kind}">{escape(text)}</p>'


def _figure(name: str, png: bytes) -> str:
    caption = escape(_CAPTIONS[name])
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
