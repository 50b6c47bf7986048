"""A training that is stopped anywhere and resumed ends as if it had never been stopped."""

from __future__ import annotations

import os

import pytest

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.reading import LoadedCheckpoint
from ppo_scheduler.checkpoint.store import CheckpointStore
from ppo_scheduler.errors import Interrupted, UserError


def publish_instead(store: CheckpointStore, changed: LoadedCheckpoint) -> None:
    """Put a changed tree in the place of the checkpoint it was read from."""
    said = changed.manifest.model_dump(include=set(Description.model_fields))
    store.publish(changed.tree, Description(**said))
    store.close()


@pytest.fixture(params=["counterfactual", "gae"])
def make_kind(request, make_config):
    """Make the config of a training on one kind of advantages that is validated now and then."""

    def make(**saving):
        return make_config(
            ppo_config={"advantage": request.param}, checkpointing={"validation_freq": 2, **saving}
        )

    return make


@pytest.fixture
def straight(make_kind, train, tmp_path):
    """A training that was never stopped, with a checkpoint folder of its own."""
    return train(make_kind(checkpoint_dir=str(tmp_path / "straight_checkpoints")), "straight")


# Episodes have 100 requests: later than that, output lengths of earlier ones are carried along.
@pytest.mark.parametrize("step", [1, 10, 57, 100, 101, 163, 239])
def test_stopped_and_resumed_is_bit_identical(make_kind, train, stop_at, straight, step):
    stop_at(step)
    with pytest.raises(Interrupted):
        train(make_kind())
    resumed = train(make_kind(), load_checkpoint="latest")
    assert resumed.has_weights_of(straight)
    assert resumed.rows == straight.rows
    assert resumed.validation == straight.validation


@pytest.mark.parametrize("engine", ["compiled", "vidur"])
def test_where_signals_come_late_too(make_config, train, stop_at, tmp_path, engine):
    late = {
        "observation": {"signal_delay_s": 0.1},
        "simulation": {"engine": engine},
        "evaluation": {"enabled": False},
        "warmstart": {"enabled": False},
        "ppo_config": {"advantage": "gae"},
    }
    folder = str(tmp_path / "straight_checkpoints")
    straight = train(make_config(**late, checkpointing={"checkpoint_dir": folder}), "straight")
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config(**late))
    resumed = train(make_config(**late), load_checkpoint="latest")
    assert resumed.has_weights_of(straight)
    assert resumed.rows == straight.rows


def test_output_lengths_of_earlier_episodes_are_part_of_a_checkpoint(make_config, train, tmp_path):
    straight = train(make_config(checkpointing={"checkpoint_dir": str(tmp_path / "straight")}))
    train(make_config(), "stopped", stop_at_requests=130)
    store = CheckpointStore(make_config().checkpointing)
    loaded = store.load("latest")
    episodes = loaded.tree["simulation"]["episodes"]
    assert episodes["lengths"].any()
    episodes["lengths"] = None
    publish_instead(store, loaded)
    forgetful = train(make_config(), "forgetful", load_checkpoint="latest")
    assert not forgetful.has_weights_of(straight), "what choices cost depends on them"


def test_training_in_chunks_is_bit_identical(make_kind, train, straight):
    manifests = []
    for stop_at in (70, 140, 200, 240):
        chunk = train(
            make_kind(),
            load_checkpoint="latest" if manifests else None,
            stop_at_requests=stop_at,
        )
        manifests.append(chunk.newest.manifest)
    assert [manifest.global_step for manifest in manifests] == [70, 140, 200, 240]
    assert [manifest.reason for manifest in manifests] == [*["chunk_end"] * 3, "end"]
    assert chunk.has_weights_of(straight)
    assert chunk.rows == straight.rows
    assert chunk.validation == straight.validation


def test_a_chunk_that_is_trained_already_is_left_alone(make_config, train):
    train(make_config(), stop_at_requests=70)
    again = train(
        make_config(monitoring={"log_level": "info"}), load_checkpoint="latest", stop_at_requests=70
    )
    assert "the 70 requests of this chunk are trained already" in again.log
    assert again.steps == [70]


def test_a_checkpoint_counts_every_decision_once(make_config, train):
    manifest = train(make_config()).newest.manifest
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert manifest.reason == "end"


@pytest.mark.shows("training.total_requests")
def test_a_finished_training_can_be_extended(make_config, train):
    train(make_config())
    longer = train(make_config(training={"total_requests": 300}), load_checkpoint="latest")
    assert longer.newest.manifest.global_step == 300


@pytest.mark.shows("checkpointing.checkpoint_interval", "checkpointing.max_checkpoints")
def test_checkpoint_interval_counts_ppo_steps(make_config, train):
    config = make_config(checkpointing={"checkpoint_interval": 50, "max_checkpoints": 3})
    assert train(config).steps == [150, 200, 240]


@pytest.mark.shows("checkpointing.incremental_checkpoints")
def test_without_increments_only_the_newest_is_kept(make_config, train):
    config = make_config(
        checkpointing={"checkpoint_interval": 50, "incremental_checkpoints": False}
    )
    assert train(config).steps == [240]


@pytest.mark.shows("checkpointing.enable_checkpoints", "checkpointing.checkpoint_dir")
def test_switched_off_nothing_is_saved(make_config, train, tmp_path):
    trained = train(make_config(checkpointing={"enable_checkpoints": False}))
    assert not (tmp_path / "checkpoints").exists()
    assert (trained.run / "policy.pt").exists()


def test_a_fresh_training_moves_the_old_lineage_aside(make_config, train, tmp_path):
    old = train(make_config(), "first").newest.path.read_bytes()
    train(make_config(), "second")
    archived = list((tmp_path / "checkpoints" / "archive").rglob("*.pt"))
    assert old in [path.read_bytes() for path in archived if not path.is_symlink()]


def test_a_changed_workload_goes_on_with_its_next_request(make_config, train, stop_at):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config())
    other = make_config(workload={"qps": 9.0}, monitoring={"log_level": "info"})
    trained = train(other, load_checkpoint="latest")
    manifest = trained.newest.manifest
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert "workload.qps: 24.5 in the checkpoint, 9.0 now" in trained.log
    assert "going on with request 57" in trained.log


def test_what_the_settings_do_not_show_is_found_by_the_replay(make_config, train, stop_at):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config())
    store = CheckpointStore(make_config().checkpointing)
    loaded = store.load("latest")
    loaded.tree["simulation"]["digest"] = "0" * 32
    publish_instead(store, loaded)
    with pytest.raises(UserError, match="replaying the unfinished episode"):
        train(make_config(), load_checkpoint="latest")


@pytest.mark.parametrize("num_replicas", [2, 5])
def test_another_cluster_size_goes_on_with_the_next_request(
    make_config, train, stop_at, num_replicas
):
    stop_at(57)
    with pytest.raises(Interrupted):
        train(make_config())
    other = make_config(cluster={"num_replicas": num_replicas})
    trained = train(other, load_checkpoint="latest")
    manifest = trained.newest.manifest
    assert manifest.num_replicas == num_replicas
    assert manifest.global_step == manifest.facts["requests_done"] == 240
    assert trained.rows[0]["global_step"] == "47"  # of before the change
    assert f"Actions/Replica_{num_replicas - 1}" in trained.rows[-1]
    assert f"Actions/Replica_{num_replicas}" not in trained.rows[-1]


def test_a_second_training_cannot_share_the_folder(make_config, train):
    config = make_config()
    holder = CheckpointStore(config.checkpointing)
    holder.prepare()
    try:
        with pytest.raises(UserError, match=str(os.getpid())):
            train(config)
    finally:
        holder.close()


def test_the_log_says_what_was_resumed(make_config, train):
    config = make_config(monitoring={"log_level": "info"})
    train(config)
    log = train(config, load_checkpoint="latest").log
    assert "[Resume] PPO训练恢复" in log
    assert "checkpoint_step_00000240.pt" in log


@pytest.mark.shows("training.episode_requests")
def test_episodes_end_where_the_config_says(make_config, train):
    trained = train(make_config(training={"episode_requests": 60}))
    assert trained.newest.manifest.facts["episode"] == 4
