"""Demonstration sets and pretrained policies, from the scripts to the training that uses them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pexpect
import pytest

SMALL = ("--config", "small.json")
COLLECT = ("collect", *SMALL)
SETS = "outputs/demonstrations"


@pytest.fixture(scope="module")
def collected(new_place):
    """A checkout with one set, collected by the script."""
    place = new_place().with_scripts()
    child = place.script("manage_pretrain_data.sh", *COLLECT)
    # The first command after a change of the engine compiles it, on a busy machine for minutes.
    child.expect("32 decisions of look-ahead, with the cost of every choice", timeout=300)
    child.expect(r"use them: vidur-ppo train --demonstrations outputs/demonstrations/set_\d+_\d+")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    return place


@pytest.fixture
def place(collected, tmp_path):
    return collected.copy_to(tmp_path / "mein Ordner äöü")


def the_set(place) -> Path:
    [path] = (place.path / SETS).iterdir()
    return path


def test_a_set_says_what_it_holds(place, read):
    status, text = read(place.command("demos", "info", str(the_set(place))))
    assert status == 0
    assert re.search(r"teachers +lookahead\b", text)
    assert re.search(r"costs +of every choice\b", text)
    listed = place.run_command("demos", "list", "--json")
    [one] = json.loads(listed.stdout)["sets"]
    assert one["path"].endswith(the_set(place).name)
    told = json.loads(place.run_command("demos", "info", str(the_set(place)), "--json").stdout)
    assert told["decisions"] == one["decisions"] == 32
    assert told["priced"] is one["priced"] is True


def test_sets_of_choices_alone_are_told_apart_and_cannot_teach_costs(place, read):
    imitation = ("--set", "warmstart.method=imitation")
    made = place.run_command("demos", *COLLECT, *imitation, "--output-dir", "gezeigt", "--json")
    told = json.loads(made.stdout)
    assert (told["teachers"], told["decisions"], told["priced"]) == (["vllm_dp"], 16, False)
    status, text = read(place.command("demos", "list", "."))
    assert status == 0
    assert re.search(r"gezeigt +16 +vllm_dp +no ", text)
    assert re.search(r"32 +lookahead +yes ", text)
    refused = place.run_command("pretrain", *SMALL, "--demonstrations", "gezeigt")
    assert refused.returncode == 2
    assert 'set warmstart.method to "imitation", or collect a new set' in refused.stderr
    assert not (place.path / "outputs" / "pretrain").exists()
    taught = place.run_command("pretrain", *SMALL, *imitation, "--demonstrations", "gezeigt")
    assert taught.returncode == 0, taught.stderr
    assert "as vllm_dp" in taught.stdout


def test_sets_are_deleted_after_a_yes_only(place, asked, finished):
    made = the_set(place)
    alien = place.path / SETS / "notes.txt"
    alien.write_text("mine")

    child = place.command("demos", "clean")
    child.expect(r"Delete this set\? \[y/N\]")
    child.sendline("perhaps")
    child.expect("Error: invalid input")
    child.expect(r"\[y/N\]")
    child.sendline("n")
    assert finished(child)[0] == 0
    assert made.exists()

    child = place.command("demos", "clean")
    asked(child, r"\[y/N\]")
    child.sendintr()
    assert finished(child)[0] == 130
    assert made.exists()

    asked = place.run_command("demos", "clean")
    assert asked.returncode == 2
    assert "say --yes" in asked.stderr
    assert made.exists()

    child = place.command("demos", "clean")
    child.expect(r"\[y/N\]")
    child.sendline("y")
    assert finished(child)[0] == 0
    assert not made.exists()
    assert alien.read_text() == "mine"


def test_a_place_that_cannot_hold_a_set_is_named(place):
    (place.path / "notes.txt").write_text("mine")
    result = place.run_command("demos", "collect", "--output-dir", "notes.txt/set")
    assert result.returncode == 2
    assert "notes.txt/set" in result.stderr
    assert (place.path / "notes.txt").read_text() == "mine"


def test_ctrl_c_leaves_no_half_set_and_the_rest_alone(place, finished):
    kept = the_set(place)
    child = place.command("demos", *COLLECT, "--demo-steps", "160000")
    child.expect("workload: ")
    child.sendintr()
    status, text = finished(child)
    assert (status, "no demonstrations were kept" in text) == (130, True)
    assert list(kept.parent.iterdir()) == [kept]


def test_a_policy_is_pretrained_from_a_set_and_trained_on(place, finished, read):
    made = str(the_set(place))
    status, text = read(
        place.script("standalone_pretrain.sh", *SMALL, "--demonstrations", made, "--bc-epochs", "3")
    )
    assert status == 0, text
    [run] = (place.path / "outputs" / "pretrain").iterdir()
    policy = run / "pretrained_actor.pt"
    assert policy.exists()
    assert f"--external-pretrain {policy.relative_to(place.path)}" in text.replace("'", "")
    assert {"warm_start.json", "warm_start.csv", "tensorboard"} <= {
        path.name for path in run.iterdir()
    }

    fits = place.run_command("validate-model", *SMALL, str(policy), "--json")
    assert (fits.returncode, json.loads(fits.stdout)["fits"]) == (0, True)
    other = place.run_command(
        "validate-model", *SMALL, str(policy), "--set", "observation.queue_slots=1"
    )
    assert other.returncode == 1
    assert "does not fit" in other.stderr

    other = place.command(
        "pretrain", *SMALL, "--demonstrations", made, "--finetune", str(policy),
        "--output-dir", "verfeinert ü", "--quiet",
    )  # fmt: skip
    status, text = read(other)
    assert status == 0
    assert "pretraining folder" not in text, "only warnings are told"
    finer = place.path / "verfeinert ü"
    begun, refined = (
        json.loads((folder / "warm_start.json").read_text()) for folder in (run, finer)
    )
    assert (finer / "pretrained_actor.pt").read_bytes() != policy.read_bytes()
    assert [len(one["history"]) for one in (begun, refined)] == [3, 2]
    assert f"fine-tuning {policy}" in (finer / "pretraining.log").read_text()

    used = place.run("--external-pretrain", str(policy), "--use-external", "--resume", "never")
    assert used.returncode == 0, used.stderr
    assert "chooses the same in all of 512 probe states" in place.log()


def test_a_training_begins_with_a_set(place):
    result = place.run("--demonstrations", str(the_set(place)), "--resume", "never")
    assert result.returncode == 0, result.stderr
    log = place.log()
    assert "decisions of look-ahead" not in log
    assert the_set(place).name in log
    elsewhere = place.run(
        "--demonstrations", str(the_set(place)), "--resume", "never",
        "--set", "observation.queue_slots=1",
    )  # fmt: skip
    assert elsewhere.returncode == 2
    assert the_set(place).name in elsewhere.stderr
    assert len(place.runs) == 1


def test_a_training_that_was_killed_in_its_warm_start_begins_again_to_the_same_bits(place, until):
    """Many rounds, of which the first is on the disk when the process dies."""
    begin = ("--resume", "never", "--total-requests", "20", "--bc-epochs", "30")
    killed = place.start(*begin)
    until(lambda: any((run / "demonstrations.npz").exists() for run in place.runs), killed)
    killed.kill()
    killed.communicate()
    [first] = place.runs
    assert not (first / "pretrained_actor.pt").exists()
    for _ in range(2):
        done = place.run(*begin)
        assert done.returncode == 0, done.stderr
    _, again, straight = place.runs
    for name in ("demonstrations.npz", "warm_start.json", "pretrained_actor.pt"):
        assert (again / name).read_bytes() == (straight / name).read_bytes(), name
