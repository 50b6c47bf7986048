"""Cells in processes of their own, and what becomes of them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from ppo_scheduler.errors import Interrupted, UserError
from ppo_scheduler.files import write_file
from vidur_ext.config.loading import dump_config
from vidur_ext.suite.cell import run_cell
from vidur_ext.suite.driver import run_cells
from vidur_ext.suite.plan import Cell
from vidur_ext.suite.progress import progress_of

TRACE = "\n".join(
    [
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        *(f"2024-05-10 00:{row // 60:02}:{row % 60:02}.0000000,100,20" for row in range(2000)),
    ]
)
GONE = {"workload": {"source": "trace", "trace_file": "gone.csv"}}


def prepare(cell: Cell) -> None:
    cell.folder.path.mkdir(parents=True)
    write_file(cell.folder.config, dump_config(cell.config).encode())


@pytest.fixture
def cell(plan, tmp_path) -> Cell:
    [cell] = plan().cells(tmp_path / "suite", {})
    return cell


@pytest.fixture
def doomed(plan, tmp_path, monkeypatch) -> list[Cell]:
    """Two cells whose trace goes away after they were planned; only their processes notice."""
    monkeypatch.chdir(tmp_path)
    Path("gone.csv").write_text(TRACE)
    cells = plan("bad", "other", **GONE).cells(tmp_path / "suite", {})
    Path("gone.csv").unlink()
    return cells


def running_cells() -> list[int]:
    """Return the processes of cells that this one has started."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, line in lines.items() if b"vidur_ext.suite.cell" in line]


def stages(shown: Iterable[dict]) -> list[str]:
    return list(dict.fromkeys(one.stage for moment in shown for one in moment.values()))


def test_a_cell_trains_and_judges_and_is_done_then(cell) -> None:
    prepare(cell)
    assert progress_of(cell, 1.0).stage == "warm start"
    assert not cell.done
    run_cell(cell.folder)
    assert cell.done
    assert progress_of(cell, 9.0).stage == "done"
    assert (cell.folder.path / "checkpoints" / "latest.pt").exists()


def test_a_cell_whose_comparison_is_missing_only_compares(cell) -> None:
    prepare(cell)
    run_cell(cell.folder)
    policy, actor = cell.folder.policy, cell.folder.pretrained_actor
    trained, warm_started = policy.read_bytes(), actor.stat().st_mtime_ns
    cell.folder.comparison_json.unlink()
    assert progress_of(cell, 0.0).stage == "comparison"
    run_cell(cell.folder)
    assert cell.done
    assert policy.read_bytes() == trained
    assert actor.stat().st_mtime_ns == warm_started
    log = cell.folder.log.read_text()
    assert (log.count("trained 80 decisions"), log.count("comparison in")) == (1, 2)


def test_a_cell_that_was_killed_in_its_warm_start_begins_anew(cell) -> None:
    prepare(cell)
    cell.folder.log.write_text("")  # what is there of it: a log, and no policy yet
    run_cell(cell.folder)
    assert cell.done


def test_a_cell_in_whose_folder_another_process_trains_is_left_to_it(cell, monkeypatch) -> None:
    prepare(cell)
    monkeypatch.setattr("vidur_ext.suite.cell._PATIENCE_S", 0.0)
    with cell.folder.lock(), pytest.raises(UserError, match="is training there"):
        run_cell(cell.folder)
    assert not cell.folder.log.exists()


def test_how_far_a_training_is_is_told_from_its_files(cell) -> None:
    prepare(cell)
    run_cell(cell.folder)
    cell.folder.comparison_json.unlink()
    cell.folder.policy.unlink()
    progress = progress_of(cell, 4.0)
    assert (progress.stage, progress.share, progress.seconds) == ("training", 1.0, 4.0)


def test_cells_that_are_done_start_no_process(cell) -> None:
    prepare(cell)
    cell.folder.comparison.mkdir()
    cell.folder.comparison_json.write_text("{}")
    shown: list[dict] = []
    run_cells([cell], 2, shown.append)
    assert not shown
    assert not (cell.folder.path / "process.log").exists()


def test_a_cell_that_fails_is_named_with_the_end_of_its_log(doomed) -> None:
    shown: list[dict] = []
    with pytest.raises(UserError) as failed:
        run_cells(doomed[:1], 1, shown.append)
    text = str(failed.value)
    assert text.startswith("1 of 1 trainings failed, and no report is written without them")
    assert "bad, seed 0 ended with status 2; the end of " in text
    assert "error: gone.csv: there is no such trace file" in text
    assert stages(shown) == ["warm start", "failed"]


def test_a_cell_that_is_killed_has_failed_and_the_others_go_on(doomed) -> None:
    def kill_first(progress: dict) -> None:
        if progress[doomed[0]].stage == "warm start":
            for pid in running_cells():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(UserError) as failed:
        run_cells(doomed, 1, kill_first)
    assert "2 of 2 trainings failed" in str(failed.value)
    assert "bad, seed 0 was killed by SIGKILL" in str(failed.value)
    assert "other, seed 0 ended with status 2" in str(failed.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_running_cells_and_begins_no_more(doomed, number) -> None:
    running, waiting = doomed
    shown: list[dict] = []

    def stop(progress: dict) -> None:
        shown.append(progress)
        if len(shown) == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=signal.Signals(number).name) as stopped:
        run_cells([running, waiting], 1, stop)
    assert "0 of 2 are done. Start again to go on" in stopped.value.outcome
    assert shown[-1][waiting].stage == "waiting"
    assert shown[-1][running].stage == "stopped"
    assert not running_cells()
    assert not (waiting.folder.path / "process.log").exists()
