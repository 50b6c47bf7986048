"""``vidur-ppo checkpoints list|show|verify|diff``: looking changes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from vidur_ext.run_folder import RunFolder


class TestList:
    def test_it_is_a_table_of_80_columns_with_marks(self, checkpoints, series, folder) -> None:
        settings = {"checkpointing.keep_every": 100}
        run_dir = "outputs/run_20300102_030000"
        series.save(
            100,
            128,
            age=timedelta(hours=3),
            scores={128: -1.25},
            settings=settings,
            run_dir=run_dir,
        )
        series.save(12345678, settings=settings, run_dir=run_dir, reason="validation")
        status, out, err = checkpoints("list", "--dir", folder)
        assert (status, err) == (0, "")
        lines = [line.split() for line in out.splitlines()]
        assert lines[1][:3] == ["step", "decisions", "age"]
        assert lines[2][:5] == ["P", "100", "100", "3", "h"]
        assert lines[3][0] == "128"
        assert lines[3][-2:] == ["-1.25", "run_20300102_030000"]
        assert lines[4][:3] == ["*", "12345678", "12345678"]
        assert "* what --resume latest continues, P permanent" in out
        assert max(map(len, out.splitlines()[1:])) <= 80

    def test_json_tells_all_to_programs(self, checkpoints, series, folder) -> None:
        series.save(1, 2, scores={2: 0.5}, age=timedelta(hours=1))
        status, out, _ = checkpoints("list", "--dir", folder, "--json")
        document = json.loads(out)
        assert (status, document["folder"]) == (0, str(folder))
        one, two = document["checkpoints"]
        assert (one["ppo_step"], one["latest"], two["latest"]) == (1, False, True)
        assert (two["val_score"], two["reason"], two["run_dir"]) == (0.5, "interval", "runs/golden")
        assert two["size_bytes"] == series.path(2).stat().st_size
        assert 3600 <= two["age_s"] < 7200
        assert Path(two["path"]) == series.path(2)

    def test_without_a_folder_they_are_those_of_the_newest_run(
        self, checkpoints, series, folder, tmp_path
    ) -> None:
        run = RunFolder.at(tmp_path / "outputs" / "a_scenario" / "runs" / "run_1")
        config = {"checkpointing": {"checkpoint_dir": "./checkpoints", "max_checkpoints": 1}}
        run.config.write_text(json.dumps(config), encoding="utf-8")
        run.log.touch()
        series.save(7, 8, facts={"run_id": run.identify()})
        document = json.loads(checkpoints("list", "--json")[1])
        assert document["folder"] == "checkpoints"
        assert [row["ppo_step"] for row in document["checkpoints"]] == [7, 8]
        assert checkpoints("prune", "--yes")[0] == 0  # keeps what the run's config keeps
        assert series.steps() == [8]

    def test_archives_are_listed_with_all(self, checkpoints, series, folder) -> None:
        series.save(7)
        series.archive()
        assert "no checkpoints in" in checkpoints("list", "--dir", folder)[1]
        out = checkpoints("list", "--dir", folder, "--all")[1]
        assert "archive" in out.splitlines()[0]
        assert out.splitlines()[2].split()[0] == "7"
        [line] = json.loads(checkpoints("list", "--dir", folder, "--all", "--json")[1])[
            "checkpoints"
        ]
        assert line["archive"] in line["path"]
        assert line["latest"] is False

    def test_what_cannot_be_read_is_named(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        series.path(2).with_suffix(".json").unlink()
        status, out, _ = checkpoints("list", "--dir", folder)
        assert status == 0
        assert "unusable" in out
        assert "checkpoint_step_00000002.json beside it: No such file" in out
        assert out.splitlines()[2].split()[:2] == ["*", "1"]

    def test_a_checkpoint_from_the_future_is_no_surprise(self, checkpoints, series, folder) -> None:
        series.save(1, age=timedelta(hours=-5))
        assert "future" in checkpoints("list", "--dir", folder)[1]

    def test_the_config_names_the_folder(self, checkpoints, series, tmp_path) -> None:
        series.save(3)
        keys = {"checkpoint_dir": "${output_root}/checkpoints"}
        config = {"checkpointing": keys, "training": {"output_root": str(tmp_path)}}
        (tmp_path / "my.json").write_text(json.dumps(config))
        assert checkpoints("list", "--config", "my.json")[1].splitlines()[2].split()[:2] == [
            "*",
            "3",
        ]

    def test_without_config_and_folder_it_looks_where_trainings_save(self, checkpoints) -> None:
        status, _, err = checkpoints("list")
        assert status == 2
        assert "outputs/checkpoints: there is no such folder" in err

    def test_a_missing_folder_is_an_error_and_not_made(self, checkpoints, folder) -> None:
        status, _, err = checkpoints("list", "--dir", folder)
        assert status == 2
        assert "there is no such folder" in err
        assert not folder.exists()

    def test_it_does_not_wait_for_torch(self, series, folder) -> None:
        series.save(1)
        program = (
            "import sys; from vidur_ext.cli import app; "
            f"app(['checkpoints', 'list', '--dir', {str(folder)!r}], standalone_mode=False); "
            "print([name for name in ('torch', 'vidur') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        assert done.stdout.endswith("[]\n")


class TestShow:
    def test_it_tells_manifest_parts_and_changed_settings(
        self, checkpoints, real_checkpoint
    ) -> None:
        status, out, _ = checkpoints("show", real_checkpoint)
        assert status == 0
        assert "saved because of  interval" in out
        rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
        parts = {part: int(rows[part][1]) for part in ("learner", "rollout", "metrics")}
        assert all(count > 0 for count in parts.values())
        assert rows["cluster.num_replicas"] == ["cluster.num_replicas", "3", "4"]
        assert "training.seed" not in rows, "it has its default"
        assert max(map(len, out.splitlines()[1:])) <= 80

    def test_json_has_the_manifest_as_it_is(self, checkpoints, real_checkpoint) -> None:
        document = json.loads(checkpoints("show", real_checkpoint, "--json")[1])
        manifest = json.loads(real_checkpoint.with_suffix(".json").read_text())
        del manifest["manifest_sha256"]
        assert document["manifest"] == manifest
        # Its schema knew no validations: the migration adds that part, and leaves it empty.
        parts = [part["name"] for part in document["parts"]]
        assert parts == [*manifest["parts"], "validation"]

    @pytest.mark.parametrize("named", ["latest", "2", "checkpoints/checkpoint_step_00000002.pt"])
    def test_it_can_be_named_in_three_ways(self, checkpoints, series, folder, named) -> None:
        series.save(1, 2)
        document = json.loads(checkpoints("show", named, "--dir", folder, "--json")[1])
        assert document["manifest"]["ppo_step"] == 2

    def test_latest_is_the_newest_good_one_and_names_the_bad(
        self, checkpoints, series, folder, flip_a_bit
    ) -> None:
        series.save(1, 2)
        flip_a_bit(series.path(2))
        status, out, err = checkpoints("show", "latest", "--dir", folder, "--json")
        assert (status, json.loads(out)["manifest"]["ppo_step"]) == (0, 1)
        assert "skipped" in err
        assert "00000002.pt: damaged" in err

    def test_an_old_version_says_what_it_did_not_record(self, checkpoints, old_checkpoint) -> None:
        status, out, _ = checkpoints("show", old_checkpoint)
        assert status == 0
        assert "its settings were not recorded" in out

    @pytest.mark.parametrize(
        ("named", "message"),
        [
            ("absent.pt", "absent.pt: no such checkpoint"),
            ("9", "no checkpoint of PPO step 9; there are: 1"),
            (".", "is a folder; name a checkpoint"),
        ],
    )
    def test_what_is_not_there_is_an_error(
        self, checkpoints, series, folder, named, message
    ) -> None:
        series.save(1)
        status, out, err = checkpoints("show", named, "--dir", folder)
        assert (status, out) == (2, "")
        assert message in err


class TestVerify:
    def test_good_ones_are_good_and_nothing_is_written(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        before = series.contents()
        status, out, err = checkpoints("verify", "--dir", folder)
        assert (status, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()] == ["ok", "ok"]
        assert series.contents() == before

    def test_a_bad_one_is_named_with_the_reason_and_ends_with_2(
        self, checkpoints, series, folder, flip_a_bit
    ) -> None:
        series.save(1, 2, 3)
        flip_a_bit(series.path(2))
        before = series.contents()
        status, out, err = checkpoints("verify", "--dir", folder)
        assert status == 2
        assert [line.split()[0] for line in out.splitlines()] == ["ok", "BAD", "ok"]
        assert "1 of 3 checkpoints cannot be used" in err
        assert "00000002.pt: damaged: its SHA-256 is not the one in its manifest" in err
        assert series.contents() == before

    def test_json_has_a_verdict_for_each(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        series.path(1).with_suffix(".json").unlink()
        status, out, _ = checkpoints("verify", "--dir", folder, "--json")
        one, two = json.loads(out)["checkpoints"]
        assert (status, one["ok"], two["ok"], two["problem"]) == (2, False, True, None)
        assert "is not beside it" in one["problem"]

    def test_named_ones_only(self, checkpoints, series, folder, flip_a_bit) -> None:
        series.save(1, 2, 3)
        flip_a_bit(series.path(2))
        assert checkpoints("verify", 1, series.path(3), "--dir", folder)[0] == 0
        assert checkpoints("verify", 1, 2, "--dir", folder)[0] == 2
        assert checkpoints("verify", 1, 99, "--dir", folder)[0] == 2

    def test_archived_ones_with_all(self, checkpoints, series, folder, flip_a_bit) -> None:
        series.save(1)
        series.archive()
        series.save(5)
        [archived] = folder.glob("archive/*/checkpoint_step_*.pt")
        flip_a_bit(archived)
        assert checkpoints("verify", "--dir", folder)[0] == 0
        status, _, err = checkpoints("verify", "--dir", folder, "--all")
        assert status == 2
        assert str(archived) in err

    def test_nothing_to_verify_is_not_a_success(self, checkpoints, tmp_path) -> None:
        status, _, err = checkpoints("verify", "--dir", tmp_path)
        assert status == 2
        assert "no checkpoints to verify" in err


class TestDiff:
    def test_the_same_state_is_equal(self, checkpoints, series, folder) -> None:
        series.save(1, 2)
        status, out, _ = checkpoints("diff", 1, 2, "--dir", folder, "--exit-code")
        assert status == 0
        assert "settings: equal" in out
        assert "counters and other values: equal" in out

    def test_another_state_is_told_part_by_part(
        self, checkpoints, real_checkpoint, old_checkpoint
    ) -> None:
        status, out, _ = checkpoints("diff", real_checkpoint, old_checkpoint)
        assert status == 0
        assert "learner.counters.global_step" in out
        assert max(map(len, out.splitlines()[2:])) <= 80
        assert checkpoints("diff", real_checkpoint, old_checkpoint, "--exit-code")[0] == 1

    def test_other_settings_or_versions_are_a_difference(self, checkpoints, series, folder) -> None:
        series.save(1)
        series.save(2, settings={"training.seed": 4}, versions={"python": "3.99"})
        document = json.loads(checkpoints("diff", 1, 2, "--dir", folder, "--json")[1])
        assert document["different"] is True
        [seed] = [one for one in document["settings"] if one["name"] == "training.seed"]
        assert (seed["a"], seed["b"]) == ("0", "4")
        assert {"name": "python", "a": '"3.11.7"', "b": '"3.99"'} in document["versions"]
        assert all(not part["changed_tensors"] for part in document["parts"])
        out = checkpoints("diff", 1, 2, "--dir", folder)[1]
        assert "training.seed" in out

    def test_json_lists_every_difference(
        self, checkpoints, real_checkpoint, old_checkpoint
    ) -> None:
        document = json.loads(checkpoints("diff", old_checkpoint, real_checkpoint, "--json")[1])
        [learner] = [part for part in document["parts"] if part["name"] == "learner"]
        assert {"name": "learner.counters.ppo_step", "a": "57", "b": "50"} in learner["values"]
        assert all("max_abs" in one for one in learner["changed_tensors"])

    def test_a_bad_one_is_an_error_with_another_status_than_a_difference(
        self, checkpoints, series, folder, flip_a_bit
    ) -> None:
        series.save(1, 2)
        flip_a_bit(series.path(2))
        assert checkpoints("diff", 1, 2, "--dir", folder, "--exit-code")[0] == 2


def test_a_copy_of_the_folder_reads_the_same(checkpoints, series, folder, tmp_path) -> None:
    series.save(1, 2)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, symlinks=True)
    assert checkpoints("verify", "--dir", copy)[0] == 0
    assert checkpoints("diff", series.path(1), copy / series.path(1).name, "--exit-code")[0] == 0


@pytest.mark.parametrize(
    "arguments", [("shwo",), ("show",), ("diff", "1"), ("list", "--no-such"), ("export", "1")]
)
def test_a_wrong_command_line_ends_in_one_message(checkpoints, arguments) -> None:
    status, _, err = checkpoints(*arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert err.endswith("(see --help)\n")
