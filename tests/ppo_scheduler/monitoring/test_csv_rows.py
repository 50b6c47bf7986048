"""The CSV keeps one schema, loses no whole row and repeats none."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from ppo_scheduler.monitoring.csv_metrics import CsvSink

COLUMNS = ("Training/PolicyLoss", "Rollout/RewardMean", "Reward/latency")

GOLDEN = """\
global_step,Training/PolicyLoss,Rollout/RewardMean,Reward/latency
64,,-0.5,-1.25
128,0.001,nan,0.0
192,1e-07,inf,
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics" / "training.csv"


def write(path: Path, steps, resume_step: int | None = None, columns=COLUMNS) -> None:
    sink = CsvSink(path, columns, resume_step)
    for step in steps:
        sink.record(step, {columns[0]: float(step)})
    sink.close()


def steps_in(path: Path) -> list[int]:
    with path.open(encoding="utf-8", newline="") as file:
        return [int(row["global_step"]) for row in csv.DictReader(file)]


def test_golden_file(path):
    sink = CsvSink(path, COLUMNS, None)
    sink.record(64, {"Reward/latency": -1.25, "Rollout/RewardMean": -0.5})
    sink.record(128, dict(zip(COLUMNS, (1e-3, float("nan"), 0.0), strict=True)))
    sink.record(192, {"Training/PolicyLoss": 1e-7, "Rollout/RewardMean": float("inf")})
    sink.close()
    assert path.read_bytes() == GOLDEN.encode()


def test_a_row_is_in_the_file_before_the_sink_is_closed(path):
    sink = CsvSink(path, COLUMNS, None)
    assert path.read_text(encoding="utf-8") == GOLDEN.splitlines(keepends=True)[0]
    sink.record(64, {})
    assert steps_in(path) == [64]
    sink.close()


def test_a_name_outside_the_schema_is_a_bug(path):
    sink = CsvSink(path, COLUMNS, None)
    with pytest.raises(AssertionError, match="Training/Typo"):
        sink.record(64, {"Training/Typo": 1.0})
    sink.close()


@settings(max_examples=40)
@given(
    steps=st.lists(st.integers(0, 50), unique=True).map(sorted),
    resume_step=st.integers(0, 60),
)
def test_a_resume_keeps_exactly_the_rows_below_its_step(tmp_path_factory, steps, resume_step):
    path = tmp_path_factory.mktemp("csv") / "training.csv"
    write(path, steps)
    before = path.read_text(encoding="utf-8").splitlines()
    write(path, [], resume_step)
    kept = [line for line in before[1:] if int(line.split(",")[0]) < resume_step]
    assert path.read_text(encoding="utf-8").splitlines() == [before[0], *kept]


def test_a_resume_goes_on_in_the_same_file(path):
    write(path, [64, 128, 192])
    write(path, [128, 192, 256], resume_step=128)
    assert steps_in(path) == [64, 128, 192, 256]
    assert [file.name for file in path.parent.iterdir()] == ["training.csv"]


def test_a_resume_in_a_new_folder_begins_a_file(path):
    write(path, [256], resume_step=200)
    assert steps_in(path) == [256]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_row_that_a_crash_cut_short_is_dropped(path, cut):
    write(path, [64, 128])
    path.write_bytes(path.read_bytes()[:-cut])
    write(path, [192], resume_step=192)
    assert steps_in(path) == [64, 192]


def test_a_new_training_keeps_the_rows_of_earlier_ones(path):
    for step in (1, 2, 3):
        write(path, [step])
    assert steps_in(path) == [3]
    assert steps_in(path.with_name("training.csv.1")) == [1]
    assert steps_in(path.with_name("training.csv.2")) == [2]


def test_a_file_with_other_columns_is_kept_and_the_history_written_anew(path):
    write(path, [64])
    before = path.read_bytes()
    history = [(64, {"Rollout/RewardMean": -0.5, "Actions/Replica_9": 0.1})]
    CsvSink(path, (*COLUMNS, "Actions/Replica_0"), 128, history).close()
    assert path.with_name("training.csv.1").read_bytes() == before
    assert path.read_text(encoding="utf-8").splitlines() == [
        "global_step,Training/PolicyLoss,Rollout/RewardMean,Reward/latency,Actions/Replica_0",
        "64,,-0.5,,",
    ]


def test_a_resume_in_a_new_folder_begins_with_the_history(path):
    CsvSink(path, COLUMNS, 128, [(64, {"Reward/latency": -1.25})]).close()
    assert steps_in(path) == [64]


@pytest.mark.parametrize("row", ["sixty-four,,,", "64,1.0", "64,,,,,", "-1,,,"])
def test_a_line_that_is_no_row_is_named(path, row):
    write(path, [64])
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{row}\n128,,,\n")
    with pytest.raises(UserError, match="line 3 is not a row of 4 cells"):
        CsvSink(path, COLUMNS, 128)


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "metrics").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="metrics cannot be written"):
        CsvSink(tmp_path / "metrics" / "training.csv", COLUMNS, None)


HISTORY = [(step, {"Reward/latency": -float(step)}) for step in (64, 128, 192)]


@pytest.mark.parametrize("lost", [[64], [128], [192], [64, 128, 192]])
def test_rows_that_the_file_lacks_are_written_from_the_history(path, lost):
    kept = [row for row in HISTORY if row[0] not in lost]
    CsvSink(path, COLUMNS, 256, kept).close()
    CsvSink(path, COLUMNS, 256, HISTORY).close()
    assert steps_in(path) == [64, 128, 192]
    assert [file.name for file in path.parent.iterdir()] == ["training.csv"], "nothing was lost"


def test_a_file_that_has_the_history_stays_as_it_is(path):
    CsvSink(path, COLUMNS, 256, HISTORY).close()
    path.write_text(path.read_text().replace("-64.0", "nan"))
    before = path.read_bytes()
    CsvSink(path, COLUMNS, 256, HISTORY).close()
    assert path.read_bytes() == before


def test_a_damaged_file_is_kept_and_the_history_written_anew(path, caplog):
    CsvSink(path, COLUMNS, 256, HISTORY).close()
    path.write_text(path.read_text().replace("128,", "\x00,"))
    CsvSink(path, COLUMNS, 256, HISTORY).close()
    assert steps_in(path) == [64, 128, 192]
    assert path.with_name("training.csv.1").exists()
    assert "line 3 is not a row" in caplog.text


def test_a_row_that_the_disk_cuts_short_is_no_row_and_the_next_takes_its_place(path, files_end_at):
    sink = CsvSink(path, COLUMNS, None)
    sink.record(64, {})
    refused = pytest.raises(UserError, match=r"training.csv: metrics cannot be written \(File too")
    with files_end_at(path.stat().st_size + 3), refused:
        sink.record(128, {})
    assert path.read_bytes().endswith(b"\n128")
    sink.record(192, {})
    assert steps_in(path) == [64, 192]


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_a_file_that_was_taken_away_is_made_anew_with_its_header(path, gone):
    sink = CsvSink(path, COLUMNS, None)
    sink.record(64, {})
    away = path if gone == "file" else path.parent
    away.rename(away.with_name("away"))
    sink.record(128, {})
    sink.record(192, {})
    assert steps_in(path) == [128, 192]
