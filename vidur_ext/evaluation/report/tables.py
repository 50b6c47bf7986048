"""HTML tables. All text is escaped here, so nothing a user names can become markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from vidur_ext.evaluation.comparison import Comparison, SchedulerComparison
from vidur_ext.evaluation.engines import EngineComparison
from vidur_ext.evaluation.metrics import LEARNED, SLO_METRIC, STATISTICS, marked
from vidur_ext.evaluation.report import engine_wording, wording
from vidur_ext.evaluation.statistics import PairedDifference

_DIFFERENCE_COLUMNS = {
    "e2e_mean_s": "E2E mean",
    "e2e_p99_s": "E2E p99",
    "ttft_mean_s": "TTFT mean",
    "ttft_p99_s": "TTFT p99",
    "tbt_mean_s": "TBT mean",
    "tbt_p99_s": "TBT p99",
    SLO_METRIC: "SLO met",
}
_SEED_COLUMNS = {
    "e2e_mean_s": "E2E mean [s]",
    "e2e_p99_s": "E2E p99 [s]",
    "ttft_p99_s": "TTFT p99 [s]",
    SLO_METRIC: "SLO met",
}
_GROUPS = {"e2e": "E2E [s]", "ttft": "TTFT [s]", "tbt": "TBT [ms]"}


def latency_table(comparison: Comparison) -> str:
    """Return mean and percentiles of every latency, each with its interval."""
    metrics = [f"{latency}_{statistic}_s" for latency in _GROUPS for statistic in STATISTICS]
    rows = [
        _row(
            one,
            [
                _cell(
                    wording.in_unit(metric, one.pooled[metric]),
                    wording.interval_in_unit(metric, one.intervals[metric]),
                )
                for metric in metrics
            ],
        )
        for one in comparison.schedulers
    ]
    return _grouped_table(list(_GROUPS.values()), list(STATISTICS), rows)


def baseline_table(comparison: Comparison) -> str:
    """Return each scheduler's paired differences to the baseline."""
    rows = [
        _row(one, _difference_cells(one.versus[comparison.baseline]))
        for one in comparison.schedulers
        if one.name != comparison.baseline
    ]
    return _table(list(_DIFFERENCE_COLUMNS.values()), rows)


def learned_table(comparison: Comparison) -> str:
    """Return the learned policy's paired differences to every other scheduler; "" without one."""
    if all(one.name != LEARNED for one in comparison.schedulers):
        return ""
    versus = comparison[LEARNED].versus
    rows = [
        _row(one, _difference_cells(versus[one.name]))
        for one in comparison.schedulers
        if one.name != LEARNED
    ]
    heading = f"<h2>{escape(LEARNED)} against each scheduler</h2>"
    note = f'<p class="note">A negative change of a latency: {escape(LEARNED)} is faster.</p>'
    return heading + note + _table(list(_DIFFERENCE_COLUMNS.values()), rows)


def service_table(comparison: Comparison) -> str:
    """Return SLO attainment, throughput and how the requests were spread."""
    columns = [
        "SLO met", "req/s", "out tok/s", "imbalance", "share of each replica", "decisions/s",
    ]  # fmt: skip
    rows = [
        _row(
            one,
            [
                _cell(
                    wording.in_unit(SLO_METRIC, one.pooled[SLO_METRIC]),
                    wording.interval_in_unit(SLO_METRIC, one.intervals[SLO_METRIC]),
                ),
                _cell(wording.number(one.pooled.requests_per_s)),
                _cell(wording.number(one.pooled.output_tokens_per_s)),
                _cell(wording.number(one.pooled.imbalance)),
                _cell(wording.shares(one.pooled.replica_shares)),
                _cell(wording.number(one.pooled.decisions_per_second)),
            ],
        )
        for one in comparison.schedulers
    ]
    return _table(columns, rows)


def engine_table(comparison: Comparison, engines: EngineComparison) -> str:
    """Return every scheduler on both engines, side by side."""
    groups = ["E2E mean [s]", "TTFT p99 [s]", "simulated requests/s"]
    rows = []
    for one in comparison.schedulers:
        both = engines[one.name]
        figures = [
            _cell(wording.number(getattr(side, name)))
            for name in ("e2e_mean_s", "ttft_p99_s", "decisions_per_second")
            for side in (both.vidur, both.compiled)
        ]
        differences = [
            _cell(engine_wording.difference(both.completion_difference)),
            _cell(f"{both.routed_elsewhere} of {both.requests}"),
        ]
        rows.append(_row(one, [*figures, *differences]))
    return _grouped_table(
        groups, ["Vidur", "compiled"], rows, ["largest difference", "routed elsewhere"]
    )


def seed_table(comparison: Comparison) -> str:
    """Return the main figures of every run."""
    groups = [f"workload {workload.seed}" for workload in comparison.workloads]
    rows = [
        _row(
            one,
            [
                _cell(wording.in_unit(metric, summary[metric]))
                for summary in one.per_seed.values()
                for metric in _SEED_COLUMNS
            ],
        )
        for one in comparison.schedulers
    ]
    return _grouped_table(groups, list(_SEED_COLUMNS.values()), rows)


def facts_table(comparison: Comparison, facts: Mapping[str, str]) -> str:
    """Return what the run was: the caller's facts, then the held-out workloads."""
    entries = dict(facts)
    for workload in comparison.workloads:
        entries[f"Held-out workload {workload.seed}"] = (
            f"{workload.requests} requests, {workload.counted_requests} counted, "
            f"digest {workload.digest}"
        )
    rows = [
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in entries.items()
    ]
    return f'<div class="scroll"><table class="facts"><tbody>{"".join(rows)}</tbody></table></div>'


def _difference_cells(differences: Mapping[str, PairedDifference | None]) -> list[str]:
    cells = []
    for metric in _DIFFERENCE_COLUMNS:
        difference = differences[metric]
        word = wording.verdict(difference)
        cells.append(
            f"<td>{escape(wording.change(metric, difference))}"
            f"<small>{escape(wording.change_interval(metric, difference))}</small>"
            f'<small class="{word}">{escape(word)}</small></td>'
        )
    return cells


def _cell(text: str, below: str = "") -> str:
    small = f"<small>{escape(below)}</small>" if below else ""
    return f"<td>{escape(text)}{small}</td>"


def _row(one: SchedulerComparison, cells: Sequence[str]) -> str:
    name = escape(marked(one.name, oracle=one.uses_output_lengths))
    kind = ' class="learned"' if one.learned else ""
    return f"<tr{kind}><th scope=row>{name}</th>{''.join(cells)}</tr>"


def _table(columns: Sequence[str], rows: Sequence[str]) -> str:
    return _wrap(f"<tr><th scope=col class=name>scheduler</th>{_headers(columns)}</tr>", rows)


def _grouped_table(
    groups: Sequence[str],
    columns: Sequence[str],
    rows: Sequence[str],
    single: Sequence[str] = (),
) -> str:
    """Return a table with the same ``columns`` in each of the ``groups``, then ``single`` ones."""
    over = "".join(f"<th scope=colgroup colspan={len(columns)}>{escape(g)}</th>" for g in groups)
    over += "".join(f"<th rowspan=2 scope=col>{escape(column)}</th>" for column in single)
    head = f"<tr><th rowspan=2 scope=col class=name>scheduler</th>{over}</tr>"
    return _wrap(f"{head}<tr>{_headers(columns) * len(groups)}</tr>", rows)


def _headers(columns: Sequence[str]) -> str:
    return "".join(f"<th scope=col>{escape(column)}</th>" for column in columns)


def _wrap(head: str, rows: Sequence[str]) -> str:
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'
