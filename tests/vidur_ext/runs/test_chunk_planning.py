"""Which requests each chunk trains, and how the record of it changes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppo_scheduler.errors import UserError
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs import chunk_record
from vidur_ext.runs.chunk_record import Order, TrainingProgress, next_slice, plan, usual_size

TOTALS = st.integers(1, 60)
SIZES = st.integers(1, 25)
NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def record(total: int, size: int, done: int = 0, checkpoint: str | None = None):
    config = TrainingConfig.model_validate(
        {"training": {"total_requests": total}, "parallel_training": {"num_envs": 1}}
    )
    return chunk_record.planned(
        config,
        size,
        RunFolder(Path("run")),
        run_id="a run",
        config_file=Path("my.json"),
        external=None,
        done=done,
        checkpoint=checkpoint,
        replaces=None,
        now=NOW,
    )


@given(TOTALS, SIZES)
def test_chunks_cover_every_request_once(total, size):
    slices = plan(total, size)
    assert [n for part in slices for n in range(part.start, part.stop)] == list(range(total))
    assert [part.chunk_id for part in slices] == list(range(1, len(slices) + 1))
    assert all(part.requests == size for part in slices[:-1])
    assert 1 <= slices[-1].requests <= size


@given(TOTALS, SIZES, st.data())
def test_the_next_chunk_holds_the_next_request(total, size, data):
    done = data.draw(st.integers(0, total - 1))
    part = next_slice(plan(total, size), done, finished=False)
    assert part is not None
    assert part.start <= done < part.stop


@given(TOTALS, SIZES)
def test_the_last_chunk_is_due_until_its_process_has_ended(total, size):
    slices = plan(total, size)
    assert next_slice(slices, total, finished=False) == slices[-1]
    assert next_slice(slices, total, finished=True) is None


@given(st.integers(1, 100_000), st.integers(2, 4000))
def test_the_usual_size_makes_at_most_eight_chunks_of_whole_episodes(total, episode):
    size = usual_size(total, episode)
    assert 1 <= size <= total
    assert len(plan(total, size)) <= 8
    assert size == total or size % episode == 0


def test_the_default_budget_is_cut_where_no_episode_is():
    training = TrainingConfig().training
    size = Order(Path("config.json"), None, None).size(TrainingConfig())
    together = training.episode_requests * TrainingConfig().parallel_training.num_envs
    assert training.total_requests % together == 0
    assert size % together == 0
    assert len(plan(training.total_requests, size)) > 1


def test_environments_share_the_usual_chunks_and_must_share_others():
    config = TrainingConfig.model_validate(
        {
            "training": {"total_requests": 6400, "episode_requests": 10},
            "parallel_training": {"num_envs": 64},
        }
    )
    assert Order(Path("config.json"), None, None).size(config) == 1280
    assert Order(Path("config.json"), 128, None).size(config) == 128
    with pytest.raises(UserError, match=r"--chunk-size 100 is no multiple .*: choose 128, or"):
        Order(Path("config.json"), 100, None).size(config)


@given(TOTALS, SIZES, st.data())
def test_a_training_that_stops_anywhere_and_often_is_recorded_right(total, size, data):
    """Chunks are run as the driver does; processes die or save less than they trained."""
    slices = plan(total, size)
    progress, done, now = record(total, size), 0, NOW
    for _ in range(3 * len(slices) + 20):
        part = next_slice(slices, done, finished=progress.status == "completed")
        if part is None:
            break
        now += timedelta(seconds=1)
        progress = chunk_record.running(progress, part.chunk_id, now)
        assert progress.chunks[part.chunk_id - 1].status == "running"
        dies = data.draw(st.booleans())
        done = data.draw(st.integers(min(done, part.stop), part.stop)) if dies else part.stop
        progress = chunk_record.trained(progress, done, "saved.pt", now)
        if dies:
            progress = chunk_record.failed(progress, part.chunk_id, "killed", now)
            assert (progress.status, progress.error_message) == ("failed", "killed")
        else:
            progress = chunk_record.completed(progress, part.chunk_id, "saved.pt", now)
        assert progress.requests_done == done
        assert progress.last_update == now.isoformat(timespec="seconds")
        for chunk, own in zip(progress.chunks, slices, strict=True):
            if chunk.status == "completed":
                assert own.stop <= done
            elif chunk.status == "pending":
                assert own.stop > done
    if progress.status == "completed":
        assert (done, progress.completed_chunks) == (total, len(slices))
        assert progress.end_time is not None


@given(TOTALS, SIZES, st.data())
def test_a_plan_that_begins_in_the_middle_counts_what_is_behind_it(total, size, data):
    done = data.draw(st.integers(0, total))
    progress = record(total, size, done, "given.pt")
    slices = plan(total, size)
    behind = [part for part in slices[:-1] if part.stop <= done]
    assert progress.completed_chunks == len(behind)
    assert progress.requests_done == done
    assert progress.status == "running", "the last chunk's process must still write the policy"


@given(TOTALS, SIZES, st.data())
def test_a_lost_checkpoint_makes_chunks_due_again(total, size, data):
    progress: TrainingProgress = record(total, size, total, "given.pt")
    progress = chunk_record.completed(progress, progress.total_chunks, "end.pt", NOW)
    assert progress.status == "completed"
    held = data.draw(st.integers(0, total - 1))
    progress = chunk_record.trained(progress, held, "older.pt", NOW)
    assert (progress.status, progress.requests_done) == ("running", held)
    part = next_slice(plan(total, size), held, finished=False)
    assert part is not None
    assert progress.completed_chunks == part.chunk_id - 1
