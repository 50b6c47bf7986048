"""Training in chunks as an operator does: killed anywhere, started again, never asked twice."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
import torch

from ppo_scheduler.files import is_held
from vidur_ext.runs.chunk_record import read_progress, write_progress

SLICES = ["--chunk-mode", "--chunk-size", "100", "--total-requests", "300"]


def chunk_of(driver) -> int | None:
    """Return the process of the driver's chunk while it trains: it holds the checkpoints' lock."""
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
    for pid in pids:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"vidur_ext.main" in line:
            return pid
    return None


def gone(pid: int) -> bool:
    """Tell whether a process has ended (as an orphan it is reaped by init, sooner or later)."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def state_of(place) -> str:
    shown = place.run_command("monitor", str(place.runs[-1]), "--json")
    return json.loads(shown.stdout)["state"]


def weights(place) -> dict[str, torch.Tensor]:
    state = torch.load(place.runs[-1] / "policy.pt", weights_only=True)
    return state["policy"]["network"]


def same_weights(one, other) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(value, second[name]) for name, value in first.items())


def trained_requests(place) -> int:
    """Count the requests of every attempt in the log: where each began and where it ended."""
    text = place.log()
    begun = [int(n) for n in re.findall(r"global_step \d+, (\d+) requests done", text)]
    ended = [int(n) for n in re.findall(r"trained (\d+) decisions", text)]
    return sum(ended) - sum(begun)


@pytest.fixture
def place(place):
    """A folder whose trainings begin at once, without a warm start."""
    return place.configure(warmstart={"enabled": False})


@pytest.fixture(scope="module")
def plain(new_place):
    """The uninterrupted training that chunks are compared with."""
    place = new_place(warmstart={"enabled": False})
    result = place.run("--resume", "never", "--total-requests", "300")
    assert result.returncode == 0, result.stderr
    return place


@pytest.fixture(scope="module")
def once(new_place):
    """A finished training of three chunks, and what its driver printed; not to be changed."""
    place = new_place(warmstart={"enabled": False})
    result = place.run(*SLICES)
    assert result.returncode == 0, result.stderr
    return place, result


@pytest.fixture
def chunked(once, tmp_path):
    """A copy of it that a test may change."""
    return once[0].copy_to(tmp_path / "mein Ordner äöü")


def test_chunks_train_every_request_once_to_the_same_bits(once, plain):
    place, result = once
    assert same_weights(place, plain)
    progress = place.progress
    assert progress["schema_version"] == 2
    assert progress["run_id"] == place.manifest["facts"]["run_id"]
    assert (progress["status"], progress["requests_done"]) == ("completed", 300)
    assert (progress["completed_chunks"], progress["total_chunks"]) == (3, 3)
    assert [chunk["requests"] for chunk in progress["chunks"]] == [100, 100, 100]
    assert trained_requests(place) == 300
    assert place.manifest["facts"]["requests_done"] == 300
    [run] = place.runs
    assert progress["output_dir"] == str(run.relative_to(place.path))
    for chunk in progress["chunks"]:
        log = (place.path / chunk["log_file"]).read_text(encoding="utf-8")
        end = 100 * chunk["chunk_id"]
        assert f"trained {end} decisions" in log
        assert f"checkpoint_step_{end:08d}.pt" in chunk["checkpoint"]
        assert f"trained {end} decisions" in result.stderr, "what a chunk prints is shown"
    assert "chunk 2 of 3: requests 100 to 199" in result.stderr


def test_tensorboard_and_metrics_have_no_seam(once, plain):
    clocks = re.compile(r"Speed/")
    tables = []
    for place in (once[0], plain):
        header, *rows = (place.runs[-1] / "metrics" / "training.csv").read_text().splitlines()
        names = header.split(",")
        kept = [i for i, name in enumerate(names) if not clocks.search(name)]
        tables.append([[row.split(",")[i] for i in kept] for row in rows])
    chunks, whole = tables
    steps = [row[0] for row in chunks]
    assert len(steps) == len(set(steps))
    assert [row for row in chunks if row in whole] == whole, "chunks may add points at their ends"


def test_a_completed_training_says_so_and_does_nothing(chunked):
    before = chunked.files()
    result = chunked.run("--chunk-mode", "--total-requests", "300")
    assert result.returncode == 0, result.stderr
    assert "this training is finished: all 300 requests are trained already" in result.stdout
    assert chunked.run(*SLICES, "--quiet").stdout == ""
    assert chunked.files() == before


def test_contradictions_are_explained_and_nothing_is_written(chunked):
    before = chunked.files()
    result = chunked.run(*SLICES[:-1], "400", "--seed", "5", "--num-replicas", "2", "--qps", "9")
    assert result.returncode == 2
    for text in (
        "training.total_requests: 300 then, 400 now",
        "training.seed: 0 then, 5 now",
        "cluster.num_replicas: 4 then, 2 now",
        "workload.qps: 24.5 then, 9.0 now",
        "--resume latest",
        "--force-warmstart",
    ):
        assert text in result.stderr
    assert "Traceback" not in result.stderr
    assert chunked.files() == before


@pytest.mark.slow
def test_a_training_goes_on_under_a_new_plan_if_told_so(chunked):
    result = chunked.run("--chunk-mode", "--chunk-size", "150", "--total-requests", "350",
                         "--resume", "latest")  # fmt: skip
    assert result.returncode == 0, result.stderr
    progress = chunked.progress
    assert [chunk["requests"] for chunk in progress["chunks"]] == [150, 150, 50]
    assert (progress["requests_done"], progress["status"]) == (350, "completed")
    assert len(chunked.runs) == 1
    assert trained_requests(chunked) == 350


def test_killed_children_and_drivers_cost_nothing_but_time(place, plain, until):
    """SIGKILL of the chunk, of the driver, and of both; then no question and the same bits."""
    # The chunk alone: the driver tells, and writes it down.
    driver = place.start(*SLICES)
    until(lambda: 25 in place.steps and chunk_of(driver) is not None, driver)
    os.kill(chunk_of(driver), signal.SIGKILL)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 2
    assert "chunk 1 was killed by SIGKILL" in errors
    assert re.search(r"\d+ of 300 requests are saved", errors)
    assert place.progress["status"] == "failed"
    assert place.progress["requests_done"] == place.steps[-1] >= 25

    # The driver alone: its chunk saves and ends by itself.
    driver = place.start(*SLICES)
    until(lambda: place.steps[-1] >= 150 and chunk_of(driver) is not None, driver)
    child = chunk_of(driver)
    driver.kill()
    driver.communicate(timeout=60)
    # At once another one: it waits for the orphan, never trains beside it, and asks nothing.
    second = place.start(*SLICES)
    until(lambda: chunk_of(second) is not None, second)
    until(lambda: gone(child), second)  # it lets go of the checkpoints a moment before it has ended
    assert place.manifest["reason"] in ("signal", "chunk_end"), "the orphan saved"

    # Both at once.
    until(lambda: place.steps[-1] >= 225 and chunk_of(second) is not None, second)
    child = chunk_of(second)
    for pid in (child, second.pid):
        os.kill(pid, signal.SIGKILL)
    second.communicate(timeout=60)

    last = place.run(*SLICES)
    assert last.returncode == 0, last.stderr
    assert place.progress["status"] == "completed"
    assert place.manifest["facts"]["requests_done"] == 300
    assert same_weights(place, plain)
    assert len(place.runs) == 1


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "SIGINT"), pytest.param(signal.SIGTERM, "SIGTERM", marks=pytest.mark.slow)],
)
def test_a_signal_to_the_driver_lets_the_chunk_save(place, until, finished, number, name):
    child = place.terminal(*SLICES)
    until(lambda: 25 in place.steps, child)
    if number == signal.SIGINT:
        child.sendintr()
    else:
        os.kill(child.pid, number)
    child.expect(rf"stopped by {name}; (\d+) of 300 requests are saved in .*checkpoint_step_")
    saved = int(child.match[1])
    assert finished(child)[0] == 128 + number
    assert place.manifest["reason"] == "signal"
    assert place.progress["requests_done"] == saved == place.manifest["facts"]["requests_done"]
    assert place.progress["status"] == "failed"
    assert "stopped" in place.progress["error_message"]
    assert state_of(place) == "stopped", "what an operator ended has not failed"


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_power_cut_loses_only_what_was_not_synced(place, plain, until, share):
    """Logs, curves and tables are not synced: they lose their ends, and files half written stay."""
    driver = place.start(*SLICES)
    until(lambda: place.steps and place.steps[-1] >= 225 and chunk_of(driver) is not None, driver)
    for pid in (chunk_of(driver), driver.pid):
        os.kill(pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    [run] = place.runs
    for path in (
        run / "ppo_training.log",
        run / "metrics" / "training.csv",
        *run.glob("chunk_*.log"),
        *(run / "tensorboard").iterdir(),
    ):
        cut(path, share)
    (run / ".training_progress.json.tmp").write_bytes(b'{"schema')
    (place.checkpoints / ".checkpoint_step_00000250.pt.tmp").write_bytes(b"\0" * 100)
    result = place.run(*SLICES)
    assert result.returncode == 0, result.stderr
    assert same_weights(place, plain)
    assert place.progress["status"] == "completed"


def interrupted_after_one_chunk(chunked) -> None:
    """Put a finished training back to the end of its first chunk, as the disk was then."""
    for path in chunked.checkpoints.glob("checkpoint_step_*"):
        if int(path.name.split("_")[-1][:8]) > 225:
            path.unlink()
    (chunked.checkpoints / "latest.pt").unlink()


@pytest.mark.slow
def test_a_damaged_progress_file_is_made_anew_from_the_checkpoints(chunked, plain):
    interrupted_after_one_chunk(chunked)
    chunked.progress_file.write_bytes(b'{"schema_version": 1, "total_ch')
    result = chunked.run(*SLICES)
    assert result.returncode == 0, result.stderr
    assert "it is not JSON" in result.stderr
    assert "made anew from outputs/checkpoints/checkpoint_step_00000225.pt" in result.stderr
    assert (chunked.progress["status"], chunked.progress["requests_done"]) == ("completed", 300)
    assert same_weights(chunked, plain)


def test_lost_checkpoints_are_explained_and_never_trained_over(chunked):
    progress = read_progress(chunked.progress_file)
    last = progress.chunks[2].model_copy(update={"status": "pending"})
    unfinished = {
        "status": "running", "end_time": None, "completed_chunks": 2,
        "chunks": (*progress.chunks[:2], last),
    }  # fmt: skip
    write_progress(chunked.progress_file, progress.model_copy(update=unfinished))
    interrupted_after_one_chunk(chunked)
    before = chunked.files()
    result = chunked.run(*SLICES)
    assert result.returncode == 2
    assert "300 requests are trained by the progress file, 225 by the newest" in result.stderr
    assert chunked.files() == before


@pytest.mark.slow
def test_a_second_driver_is_refused(place, until):
    first = place.start(*SLICES)
    until(lambda: bool(list((place.path / "outputs").glob("*/run_*/.run.lock"))), first)
    until(lambda: bool(list((place.path / "outputs").glob("*/*/training_progress.json"))), first)
    result = place.run(*SLICES)
    assert result.returncode == 2
    assert f"process {first.pid} is training there" in result.stderr
    first.terminate()
    first.communicate(timeout=60)


@pytest.mark.slow
def test_an_output_folder_that_cannot_be_made_is_named(place):
    (place.path / "in the way").write_text("a file")
    result = place.run(*SLICES, "--output-dir", "in the way/run")
    assert result.returncode == 2
    assert "in the way/run: cannot create the output folder" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_chunk_whose_checkpoints_cannot_be_saved_is_told(place):
    (place.path / "in the way").write_text("a file")
    folder = "checkpointing.checkpoint_dir=in the way/checkpoints"
    result = place.run(*SLICES, "--set", folder)
    assert result.returncode == 2
    assert "in the way/checkpoints: " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_driver_that_dies_while_warm_starting_begins_again_without_a_question(
    trained, until, new_place
):
    """An earlier training's checkpoint is there: nobody is asked about it a second time."""
    place = trained.configure(warmstart={"demo_requests": 2000})
    arguments = [*SLICES, "--force-warmstart"]
    driver = place.start(*arguments)
    until(lambda: bool(list((place.path / "outputs").glob("*/*/training_progress.json"))), driver)
    driver.kill()
    driver.communicate(timeout=60)
    assert place.run(*SLICES).returncode == 0
    assert len(place.runs) == 2
    assert (place.progress["status"], place.progress["requests_done"]) == ("completed", 300)
    whole = new_place(warmstart={"demo_requests": 2000})
    assert whole.run("--total-requests", "300").returncode == 0
    assert same_weights(place, whole)


@pytest.mark.slow
def test_without_a_comparison_a_completed_training_makes_it(chunked):
    config = json.loads((chunked.path / "small.json").read_text())
    config["evaluation"] = {
        "schedulers": ["least_outstanding"], "num_seeds": 1, "requests": 32, "bootstrap_samples": 10
    }  # fmt: skip
    (chunked.path / "small.json").write_text(json.dumps(config))
    for expected in (True, False):
        result = chunked.run(*SLICES)
        assert result.returncode == 0, result.stderr
        assert ("the comparison is missing" in result.stdout) == expected
        assert (chunked.runs[-1] / "comparison" / "comparison.json").exists()


@pytest.mark.slow
def test_quiet_chunks_print_nothing_when_all_is_well(place):
    result = place.run(*SLICES, "--quiet", "--set", "checkpointing.checkpoint_interval=32")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
def test_between_chunks_nobody_can_take_the_checkpoint_folder(place, until):
    driver = place.start(*SLICES)
    lock = place.path / "outputs" / "checkpoints" / ".lock"
    until(lambda: bool(list((place.path / "outputs").glob("*/*/training_progress.json"))), driver)
    free = 0
    while place.progress["status"] != "completed" and driver.poll() is None:
        free += not is_held(lock)
    driver.communicate(timeout=60)
    assert (driver.returncode, free) == (0, 0)
