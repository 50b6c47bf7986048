"""What the benchmark of request streams covers."""

from __future__ import annotations

import workload

from vidur_ext.workload.trace_files import trace_formats


def test_every_trace_format_is_read() -> None:
    assert workload.SAMPLES.keys() == trace_formats().keys()
