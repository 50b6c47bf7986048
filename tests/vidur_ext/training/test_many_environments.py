"""Training in many environments at once: exact resume, and every request trained once."""

from __future__ import annotations

import pytest

from ppo_scheduler.errors import Interrupted, UserError
from vidur_ext.workload.synthetic import SyntheticStream

# 240 requests: rounds of 4 * 25, 4 * 25 and 4 * 10.
FOUR = {
    "parallel_training": {"num_envs": 4, "num_workers": 1},
    "training": {"episode_requests": 25},
}
VIDUR = {"simulation": {"engine": "vidur"}}


@pytest.fixture
def make_four(make_config):
    def make(**groups):
        merged = {g: {**FOUR.get(g, {}), **groups.get(g, {})} for g in {**FOUR, **groups}}
        return make_config(**merged)

    return make


@pytest.fixture(params=["counterfactual", "gae"])
def make_kind(request, make_four):
    """Make the config of a training on one kind of advantages that is validated now and then."""

    def make(**saving):
        return make_four(
            ppo_config={"advantage": request.param}, checkpointing={"validation_freq": 2, **saving}
        )

    return make


@pytest.fixture
def straight(make_kind, train, tmp_path):
    return train(make_kind(checkpoint_dir=str(tmp_path / "straight_checkpoints")), "straight")


@pytest.mark.parametrize("step", [1, 10, 24, 25, 26, 49, 50, 59])
def test_stopped_and_resumed_is_bit_identical(make_kind, train, stop_at, straight, step):
    stop_at(step)
    with pytest.raises(Interrupted):
        train(make_kind())
    resumed = train(make_kind(), load_checkpoint="latest")
    assert resumed.has_weights_of(straight)
    assert resumed.rows == straight.rows
    assert resumed.validation == straight.validation


def test_training_in_chunks_is_bit_identical(make_kind, train, straight):
    done = []
    for stop_at in (72, 100, 200, 240):
        load = "latest" if done else None
        chunk = train(make_kind(), load_checkpoint=load, stop_at_requests=stop_at)
        done.append(chunk.newest.manifest.facts["requests_done"])
    assert done == [72, 100, 200, 240]
    assert chunk.has_weights_of(straight)
    assert chunk.rows == straight.rows


@pytest.mark.parametrize("step", [57, 101])
def test_the_engine_vidur_resumes_as_exactly(make_config, train, stop_at, tmp_path, step):
    config = make_config(**VIDUR, training={"total_requests": 120})
    folder = str(tmp_path / "straight_checkpoints")
    saved_there = {**VIDUR, "checkpointing": {"checkpoint_dir": folder}}
    straight = train(make_config(**saved_there, training={"total_requests": 120}), "straight")
    stop_at(step)
    with pytest.raises(Interrupted):
        train(config)
    resumed = train(config, load_checkpoint="latest")
    assert resumed.has_weights_of(straight)
    assert resumed.rows == straight.rows


def test_one_environment_learns_the_same_on_either_engine(make_config, train, tmp_path):
    curves = []
    for engine in ("compiled", "vidur"):
        folder = str(tmp_path / f"{engine}_checkpoints")
        config = make_config(
            simulation={"engine": engine},
            ppo_config={"advantage": "gae"},
            checkpointing={"checkpoint_dir": folder},
        )
        curves.append([float(r["Rollout/RewardMean"] or "nan") for r in train(config, engine).rows])
    # Sums are taken in another order, so the last bits differ.
    assert curves[0] == pytest.approx(curves[1], rel=1e-6, nan_ok=True)


def test_every_request_is_trained_once(make_four, train, monkeypatch):
    windows, plain = [], SyntheticStream.window

    def window(self, start, count):
        windows.append((start, count))
        return plain(self, start, count)

    monkeypatch.setattr(SyntheticStream, "window", window)
    manifest = train(make_four(checkpointing={"validation_freq": None})).newest.manifest
    trained = sorted(request for start, n in windows for request in range(start, start + n))
    assert trained == list(range(240))
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert manifest.ppo_step == 60


@pytest.mark.shows("parallel_training.num_envs")
def test_every_environment_acts_and_learns(make_four, train):
    assert not train(make_four()).has_weights_of(
        train(make_four(parallel_training={"num_envs": 2}), "two")
    )


@pytest.mark.shows("simulation.engine")
@pytest.mark.parametrize(
    "change",
    [{"parallel_training": {"num_envs": 2}}, {**VIDUR, "parallel_training": {"num_envs": 1}}],
)
def test_another_world_goes_on_with_the_next_request(make_four, train, stop_at, change):
    stop_at(30)
    with pytest.raises(Interrupted):
        train(make_four())
    other = make_four(**change, monitoring={"log_level": "info"})
    trained = train(other, load_checkpoint="latest")
    assert "parallel_training.num_envs: 4 in the checkpoint" in trained.log
    assert "going on with request 120" in trained.log
    assert trained.newest.manifest.facts["requests_done"] == 240


def test_a_rest_that_cannot_be_shared_is_refused_with_the_ways_out(make_config, make_four, train):
    train(make_config(), stop_at_requests=70)
    with pytest.raises(UserError, match=r"170 of 240 requests are left .* to 238 or 242, or num"):
        train(make_four(), load_checkpoint="latest")


def test_a_chunk_that_cannot_be_shared_is_refused(make_four, train):
    with pytest.raises(UserError, match=r"70 requests .*no multiple of .*num_envs=4"):
        train(make_four(), stop_at_requests=70)
