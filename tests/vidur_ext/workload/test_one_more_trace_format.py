"""One more file in the folder of the trace formats is one more format, everywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FORMAT = """
from vidur_ext.workload.trace_rows import TraceRows, csv_rows, parse_seconds, parse_tokens

COLUMNS = ("moment", "question", "answer")
TIME_UNIT = "s"


def read(path):
    rows = TraceRows(path, "moment")
    for line, (moment, question, answer) in csv_rows(path, COLUMNS):
        rows.add(
            line,
            parse_seconds(path, line, "moment", moment),
            parse_tokens(path, line, "question", question),
            parse_tokens(path, line, "answer", answer),
        )
    return rows.trace()
"""

# Formats are looked for when a process imports the config: in one of its own.
PROGRAM = """
import json, sys
from pathlib import Path
import vidur_ext.workload.traces

folder, trace, other = map(Path, sys.argv[1:])
vidur_ext.workload.traces.__path__.append(str(folder))

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config
from vidur_ext.config.reference import config_reference
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.vidur.requests import WorkloadRequestGeneratorConfig
from vidur_ext.workload.trace_files import load_trace


def refusal(work):
    try:
        work()
    except UserError as error:
        return str(error)


flag = WorkloadRequestGeneratorConfig.__dataclass_fields__["trace_format"]
schema = TrainingConfig.model_json_schema()
print(json.dumps({
    "detected": load_trace(trace, "auto", 99).table.prefill_tokens.tolist(),
    "named": load_trace(trace, "semaphore", 99).table.decode_tokens.tolist(),
    "unknown file": refusal(lambda: load_trace(other, "auto", 99)),
    "unknown name": refusal(lambda: load_trace(trace, "parquet", 99)),
    "config": load_config(None, ["workload.trace_format=semaphore"]).workload.trace_format,
    "misspelled": refusal(lambda: load_config(None, ["workload.trace_format=semaphor"])),
    "page": config_reference(),
    "schema": schema["$defs"]["WorkloadSection"]["properties"]["trace_format"]["enum"],
    "flag": flag.metadata["help"],
}))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return what a process with the new format says."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "semaphore.py").write_text(FORMAT, encoding="utf-8")
    trace, other = folder / "trace.csv", folder / "other.csv"
    trace.write_text("moment,question,answer\n0.5,7,3\n1.5,8,4\n", encoding="utf-8")
    other.write_text("when,what\n1,2\n", encoding="utf-8")
    paths = [str(folder), str(trace), str(other)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_its_traces_are_read_whether_it_is_named_or_detected(seen) -> None:
    assert seen["detected"] == [7, 8]
    assert seen["named"] == [3, 4]


def test_the_errors_about_traces_name_it(seen) -> None:
    assert "semaphore: moment,question,answer" in seen["unknown file"]
    assert seen["unknown name"].endswith("mooncake, semaphore, splitwise, tracelab")


def test_the_config_allows_it_and_leads_to_it(seen) -> None:
    assert seen["config"] == "semaphore"
    assert '"canary", "mooncake", "semaphore", "splitwise", ' in seen["misspelled"]
    assert seen["misspelled"].endswith('did you mean "semaphore"?')


def test_page_schema_and_flags_list_it(seen) -> None:
    assert '"mooncake", "semaphore", "splitwise", "tracelab" |' in seen["page"]
    assert "semaphore" in seen["schema"]
    assert "semaphore" in seen["flag"]
