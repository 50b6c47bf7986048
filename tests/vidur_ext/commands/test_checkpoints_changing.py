"""``vidur-ppo checkpoints prune|export``: deleting and writing only what was asked for."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ppo_scheduler.checkpoint.reading import load_named
from ppo_scheduler.config.learner_sections import ObservationSection
from ppo_scheduler.deployed import RoutingPolicy, Snapshot
from ppo_scheduler.deployed.policy import NEAR_TIE
from ppo_scheduler.observation import Observation
from ppo_scheduler.policy.routing_policy import load_policy, policy_of
from vidur_ext.routing.features import observation_schema

GOLDEN = Path(__file__).parents[2] / "ppo_scheduler" / "checkpoint" / "golden"


class TestPrune:
    def test_it_deletes_what_is_not_kept(self, checkpoints, series, folder) -> None:
        series.save(1, 2, 3, 4)
        status, out, _ = checkpoints("prune", "--dir", folder, "--keep", 2, "--yes")
        assert status == 0
        assert series.steps() == [3, 4]
        assert "to be deleted: 2" in out
        assert out.endswith("deleted 2\n")
        assert len(list(folder.glob("checkpoint_step_*.json"))) == 2

    def test_archives_go_but_the_newest_ones(self, checkpoints, series, folder) -> None:
        for step in (1, 2, 3):
            series.save(step)
            series.archive()
        series.save(4)
        notes = sorted((folder / "archive").iterdir())[1] / "notes.txt"
        notes.write_text("mine")
        status, out, _ = checkpoints("prune", "--dir", folder, "--archives", 1, "--yes", "--json")
        document = json.loads(out)
        assert status == 0
        assert [line["ppo_step"] for line in document["deleted"]] == [1, 2]
        assert [line["ppo_step"] for line in document["kept"]] == [3]
        assert series.steps() == [4]
        assert [path.name for path in folder.glob("archive/*/*.pt") if not path.is_symlink()] == [
            "checkpoint_step_00000003.pt"
        ]
        assert len(list((folder / "archive").iterdir())) == 2  # and what is not ours stays
        assert notes.read_text() == "mine"

    def test_a_link_in_the_archive_leads_to_nothing_that_is_deleted(
        self, checkpoints, series, folder, tmp_path
    ) -> None:
        series.save(1)
        elsewhere = tmp_path / "elsewhere"
        shutil.copytree(folder, elsewhere)
        (folder / "archive").mkdir()
        (folder / "archive" / "20000101T000000Z").symlink_to(elsewhere)
        assert checkpoints("prune", "--dir", folder, "--archives", 0, "--yes")[0] == 0
        assert (elsewhere / series.path(1).name).exists()

    def test_archives_and_what_a_training_continues_have_rules_of_their_own(
        self, checkpoints, series, folder
    ) -> None:
        series.save(1)
        status, _, err = checkpoints("prune", "--dir", folder, "--archives", 0, "--keep", 1)
        assert status == 2
        assert "prune one after the other" in err

    def test_permanent_ones_and_the_best_stay(self, checkpoints, series, folder) -> None:
        series.save(1, 2, 3, 4, 5, scores={1: 0.5, 2: 0.9, 3: 0.1})
        keep = ("--keep", 1, "--keep-every", 3, "--strategy", "top_k_val")
        checkpoints("prune", "--dir", folder, *keep, "--yes")
        assert series.steps() == [2, 3, 5]

    def test_what_the_training_called_permanent_stays(self, checkpoints, series, folder) -> None:
        series.save(1, 2, 3, 4, 5, settings={"checkpointing.keep_every": 2})
        keep = ("--dir", folder, "--keep", 1, "--yes")
        assert checkpoints("prune", *keep)[0] == 0
        assert series.steps() == [2, 4, 5]
        assert checkpoints("prune", *keep, "--keep-every", 4)[0] == 0
        assert series.steps() == [4, 5]

    def test_without_a_terminal_nobody_is_asked_and_nothing_deleted(
        self, checkpoints, series, folder, monkeypatch
    ) -> None:
        series.save(1, 2)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        status, out, err = checkpoints("prune", "--dir", folder, "--keep", 1)
        assert status == 2
        assert "to be deleted: 1" in out
        assert "say --yes" in err
        assert series.steps() == [1, 2]

    def test_nothing_to_delete_asks_nothing(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        assert checkpoints("prune", "--dir", folder, "--keep", 5)[:2] == (0, "nothing to delete\n")

    def test_json_tells_what_was_deleted_and_what_stays(self, checkpoints, series, folder) -> None:
        series.save(1, 2, 3)
        size = series.path(1).stat().st_size
        status, out, _ = checkpoints("prune", "--dir", folder, "--keep", 2, "--yes", "--json")
        document = json.loads(out)
        assert status == 0
        assert [line["ppo_step"] for line in document["deleted"]] == [1]
        assert [line["ppo_step"] for line in document["kept"]] == [2, 3]
        assert document["freed_bytes"] == size
        assert checkpoints("prune", "--dir", folder, "--keep", 2, "--json")[0] == 2

    def test_it_is_refused_while_a_training_writes_there(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        training = series.open()
        training.prepare()
        status, _, err = checkpoints("prune", "--dir", folder, "--keep", 1, "--yes")
        assert status == 2
        assert f"process {os.getpid()} is writing checkpoints there" in err
        assert series.steps() == [1, 2]
        training.close()
        assert checkpoints("prune", "--dir", folder, "--keep", 1, "--yes")[0] == 0

    def test_the_last_good_one_is_never_deleted(
        self, checkpoints, series, folder, flip_a_bit
    ) -> None:
        series.save(1, 2, 3)
        flip_a_bit(series.path(3))
        status, _, err = checkpoints("prune", "--dir", folder, "--keep", 1, "--yes")
        assert status == 2
        assert "00000002.pt: is the newest good checkpoint and would be deleted" in err
        assert series.steps() == [1, 2, 3]
        assert checkpoints("prune", "--dir", folder, "--keep", 2, "--yes")[0] == 0

    def test_how_many_is_asked_for_or_said_by_the_config(
        self, checkpoints, series, folder, tmp_path
    ) -> None:
        series.save(1, 2, 3)
        status, _, err = checkpoints("prune", "--dir", folder, "--yes")
        assert status == 2
        assert "say --keep N" in err
        keys = {"checkpoint_dir": "elsewhere", "max_checkpoints": 1, "keep_every": 2}
        (tmp_path / "my.json").write_text(json.dumps({"checkpointing": keys}))
        assert checkpoints("prune", "--dir", folder, "--config", "my.json", "--yes")[0] == 0
        assert series.steps() == [2, 3]

    def test_the_config_may_keep_all(self, checkpoints, series, folder, tmp_path) -> None:
        series.save(1, 2)
        keys = {"checkpoint_dir": str(folder), "max_checkpoints": None}
        (tmp_path / "my.json").write_text(json.dumps({"checkpointing": keys}))
        assert checkpoints("prune", "--config", "my.json", "--yes")[:2] == (
            0,
            "nothing to delete\n",
        )
        assert checkpoints("prune", "--config", "my.json", "--keep", 1, "--yes")[0] == 0
        assert series.steps() == [2]

    @pytest.mark.parametrize("keep", ["0", "-1", "many"])
    def test_a_wrong_number_is_refused(self, checkpoints, series, folder, keep) -> None:
        series.save(1)
        assert checkpoints("prune", "--dir", folder, "--keep", keep, "--yes")[0] == 2
        assert series.steps() == [1]

    def test_a_missing_folder_is_an_error_and_not_made(self, checkpoints, folder) -> None:
        assert checkpoints("prune", "--dir", folder, "--keep", 1, "--yes")[0] == 2
        assert not folder.exists()


class TestExport:
    def test_the_policy_can_be_used_by_itself(self, checkpoints, real_checkpoint, tmp_path) -> None:
        status, out, _ = checkpoints("export", real_checkpoint, "--output", "new/policy.pt")
        assert status == 0
        assert "of PPO step 50" in out
        policy = load_policy(
            tmp_path / "new" / "policy.pt", observation_schema(ObservationSection())
        )
        saved = load_named(real_checkpoint).tree["learner"]["policy"]["network"]
        for name, weights in policy.network.state_dict().items():
            assert torch.equal(weights, saved[name])

    def test_a_file_is_replaced_by_force_only(self, checkpoints, real_checkpoint, tmp_path) -> None:
        target = tmp_path / "policy.pt"
        target.write_bytes(b"precious")
        status, _, err = checkpoints("export", real_checkpoint, "--output", target)
        assert (status, target.read_bytes()) == (2, b"precious")
        assert "exists already" in err
        assert "--force" in err
        assert checkpoints("export", real_checkpoint, "--output", target, "--force")[0] == 0
        assert target.read_bytes() != b"precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.pt"]

    def test_json_tells_what_was_written(self, checkpoints, real_checkpoint, tmp_path) -> None:
        document = json.loads(
            checkpoints("export", real_checkpoint, "--output", "p.pt", "--json")[1]
        )
        assert (document["policy"], document["ppo_step"]) == ("p.pt", 50)
        assert document["size_bytes"] == (tmp_path / "p.pt").stat().st_size

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (".", "is a folder; name the policy file"),
            ("file/p.pt", "the policy was not written"),
            ("file/p.json", "the policy was not written"),
            ("p.npz", "p.npz: name it NAME.pt for this program, or NAME.json for a gateway"),
        ],
    )
    def test_a_place_that_cannot_be_written_is_named(
        self, checkpoints, real_checkpoint, tmp_path, output, message
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        status, _, err = checkpoints("export", real_checkpoint, "--output", output)
        assert status == 2
        assert message in err

    def test_a_bad_checkpoint_is_not_exported(
        self, checkpoints, series, folder, flip_a_bit, tmp_path
    ) -> None:
        series.save(1)
        flip_a_bit(series.path(1))
        status, _, err = checkpoints("export", 1, "--dir", folder, "--output", "p.pt")
        assert status == 2
        assert "damaged" in err
        assert not (tmp_path / "p.pt").exists()


class TestExportForAGateway:
    @pytest.fixture
    def newest_checkpoint(self):
        [path] = (GOLDEN / "schema_4").glob("*.pt")
        return path

    def test_it_chooses_as_the_policy_of_the_checkpoint(
        self, checkpoints, newest_checkpoint, tmp_path
    ) -> None:
        status, out, _ = checkpoints("export", newest_checkpoint, "--output", "new/router.json")
        assert status == 0
        assert "wrote new/router.json" in out
        assert "of PPO step 50" in out
        deployed = RoutingPolicy.load(tmp_path / "new" / "router.json")
        schema = observation_schema(ObservationSection())
        trained = policy_of(load_named(newest_checkpoint).tree["learner"]["policy"], schema)
        rng = np.random.default_rng(0)
        replicas = rng.exponential(10.0, (1, 2, len(schema.replica)))
        context = rng.exponential(10.0, (1, len(schema.context)))
        observation = Observation(replicas, context, np.empty((1, 0)))
        np.testing.assert_allclose(
            deployed.logits(Snapshot(replicas[0], context[0])),
            trained.evaluate(trained.normalize(observation))[0][0].numpy(),
            atol=NEAR_TIE,
        )

    def test_the_schema_says_what_every_feature_is(
        self, checkpoints, newest_checkpoint, tmp_path
    ) -> None:
        checkpoints("export", newest_checkpoint, "--output", "router.json")
        deployed = RoutingPolicy.load(tmp_path / "router.json")
        schema = observation_schema(ObservationSection())
        replica = {feature.name: feature for feature in deployed.replica_features}
        assert tuple(replica) == schema.replica
        assert tuple(feature.name for feature in deployed.context_features) == schema.context
        seen = [
            (replica[name].unit, replica[name].meaning)
            for name in ("running", "kv_fraction_gap", "outstanding_variance", "queue1_age_s")
        ]
        assert seen == [
            ("requests", "with KV blocks"),
            ("share", "of the KV cache that is taken; above the replica with the least"),
            ("(requests)²", "outstanding: exponentially weighted"),
            ("s", "since its arrival; of waiting request 1, from 0 on; 0 without one"),
        ]

    def test_it_is_for_the_cluster_it_was_trained_for_or_the_one_named(
        self, checkpoints, newest_checkpoint, tmp_path
    ) -> None:
        (tmp_path / "five.json").write_text('{"cluster": {"num_replicas": 5, "block_size": 32}}')
        checkpoints("export", newest_checkpoint, "--output", "two.json")
        own = RoutingPolicy.load(tmp_path / "two.json").origin
        assert (len(own["replicas"]), own["block_size"]) == (2, 16)
        assert own["trained"]["ppo_step"] == 50
        named = ("--config", "five.json", "--output", "two.json", "--force")
        checkpoints("export", newest_checkpoint, *named)
        other = RoutingPolicy.load(tmp_path / "two.json").origin
        assert (len(other["replicas"]), other["block_size"]) == (5, 32)

    def test_the_policy_of_a_run_is_exported_with_the_config_beside_it(
        self, checkpoints, newest_checkpoint, tmp_path
    ) -> None:
        run = tmp_path / "run"
        checkpoints("export", newest_checkpoint, "--output", "run/policy.pt")
        status, _, err = checkpoints("export", "run/policy.pt", "--output", "router.json")
        assert status == 2
        assert "run/policy.pt: no config.json beside it" in err
        (run / "config.json").write_text('{"cluster": {"num_replicas": 3}}')
        status, out, _ = checkpoints("export", "run/policy.pt", "--output", "router.json")
        assert status == 0
        assert out.endswith("of run/policy.pt\n")
        assert len(RoutingPolicy.load(tmp_path / "router.json").origin["replicas"]) == 3

    def test_a_checkpoint_without_settings_needs_a_config(
        self, checkpoints, old_checkpoint, tmp_path
    ) -> None:
        status, _, err = checkpoints("export", old_checkpoint, "--output", "router.json")
        assert status == 2
        assert "does not say what it was trained with: name its config with --config" in err
        shown = '{"observation": {"history": false, "queue_slots": 0}}'
        (tmp_path / "c.json").write_text(shown)
        named = ("--config", "c.json", "--output", "router.json")
        assert checkpoints("export", old_checkpoint, *named)[0] == 0

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("simulation.engine", "vidur", ""),
            ("ppo_config.of_an_earlier_version", 1, ""),
            ("cluster.gone", 1, "settings of an earlier version (cluster.gone: Extra inputs"),
        ],
    )
    def test_settings_that_features_do_not_depend_on_do_not_matter(
        self, checkpoints, series, folder, real_checkpoint, key, value, message
    ) -> None:
        settings = load_named(real_checkpoint).manifest.settings
        series.save(1, settings={**settings, key: value})
        status, _, err = checkpoints("export", 1, "--dir", folder, "--output", "router.json")
        assert status == (2 if message else 0)
        assert message in err

    def test_a_config_that_shows_other_features_is_refused(
        self, checkpoints, newest_checkpoint, tmp_path
    ) -> None:
        (tmp_path / "c.json").write_text('{"observation": {"history": false}}')
        named = ("--config", "c.json", "--output", "router.json")
        status, _, err = checkpoints("export", newest_checkpoint, *named)
        assert status == 2
        assert "the saved policy sees other features" in err
        assert not (tmp_path / "router.json").exists()
