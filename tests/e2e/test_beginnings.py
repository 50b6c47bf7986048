"""How a training begins, row by row of the decision table, in a terminal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = pytest.mark.slow
RESUMED = "[Resume] PPO训练恢复"
ROWS = {
    "both": (["--external-pretrain", "given model/päpier.pt"], True, r"\[1/2/3/q\]"),
    "model": (["--external-pretrain", "given model/päpier.pt"], False, r"\[1/2/q\]"),
    "checkpoint": ([], True, r"\[1/2/q\]"),
}


@pytest.fixture
def situation(trained):
    """Make one of the table's situations; return place, arguments and the prompt's end."""

    def make(row: str):
        arguments, checkpoint, prompt = ROWS[row]
        folder = trained.path / "given model"
        folder.mkdir()
        shutil.copy(trained.runs[0] / "policy.pt", folder / "päpier.pt")
        if not checkpoint:
            shutil.rmtree(trained.path / "outputs")
        return trained, [*arguments, "--total-requests", "150"], prompt

    return make


def resumed(place) -> bool:
    return place.manifest["global_step"] == 150 and RESUMED in place.log()


def began_anew(place, kind: str, *, cloned: bool, loaded: bool) -> bool:
    """Tell whether the newest run is a new training of this kind, begun as said."""
    run = max(place.runs, key=lambda path: path.stat().st_ctime_ns)
    log = (run / "ppo_training.log").read_text(encoding="utf-8")
    assert place.manifest["run_dir"] == str(run.relative_to(place.path))
    assert place.manifest["global_step"] == 150
    assert RESUMED not in log
    assert (run / "warm_start.json").exists() == cloned
    assert (run / "demonstrations.npz").exists() == cloned
    assert ("fine-tuning given model/päpier.pt" in log) == (cloned and loaded)
    same = log.count("chooses the same in all of 512 probe states")
    assert same == (1 if cloned else 2 if loaded else 0)
    return run.parent.name == kind


LEAVING = {
    "q": (lambda child: child.sendline("Q"), 0, "nothing was started"),
    "Ctrl-C": (lambda child: child.sendintr(), 130, "stopped by SIGINT before anything"),
    "end of input": (lambda child: child.sendeof(), 2, "the input ended before the question was"),
}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(
    "way", ["Ctrl-C", *(pytest.param(w, marks=SLOW) for w in ("q", "end of input"))]
)
def test_the_question_can_be_left(situation, asked, finished, row, way):
    place, arguments, prompt = situation(row)
    before = place.files()
    leave, status, sentence = LEAVING[way]
    child = place.terminal(*arguments)
    asked(child, prompt)
    leave(child)
    code, rest = finished(child)
    assert code == status
    assert sentence in rest
    assert place.files() == before


def test_the_question_does_not_wait_for_the_simulator(trained):
    program = """
import sys
from ppo_scheduler.errors import UserError
from vidur_ext.cli import app
try:
    app(["train", "--config", "small.json"], standalone_mode=False)
except UserError as error:
    print("no terminal to ask" in str(error))
print([name for name in ("torch", "vidur", "pandas", "matplotlib", "numba") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=trained.path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n[]\n"


def test_with_both_answer_one_resumes(situation, finished):
    place, arguments, prompt = situation("both")
    child = place.terminal(*arguments, "--set", "ppo_config.clip_ratio=0.3")
    for text in (
        "A training can be resumed",
        r"latest\.pt +-> checkpoint_step_00000120\.pt",
        r"PPO step +120",
        r"decisions +120; 120 requests",
        r"age +\d+",
        r"size +0\.\d\d MB",
        r"ppo_config\.clip_ratio: [\d.]+ in the checkpoint, 0\.3 now",
        "An external model is given: given model/päpier.pt",
        prompt,
    ):
        child.expect(text)
    for wrong in ("maybe", "", "4", "1 2"):
        child.sendline(wrong)
        child.expect(re.escape(f"{wrong!r} is none of 1, 2, 3, q"))
    child.sendline("1")
    assert finished(child)[0] == 0
    assert resumed(place)
    assert len(place.runs) == 1


def test_with_both_answer_two_fine_tunes_the_model(situation, finished):
    place, arguments, prompt = situation("both")
    child = place.terminal(*arguments)
    child.expect(prompt)
    child.sendline("2")
    assert finished(child)[0] == 0
    assert began_anew(place, "warmstart_external", cloned=True, loaded=True)
    assert list((place.checkpoints / "archive").rglob("*_00000120.pt"))


def test_with_both_answer_three_uses_the_model_as_it_is(situation, finished):
    place, arguments, prompt = situation("both")
    child = place.terminal(*arguments)
    child.expect(prompt)
    child.sendline("3")
    assert finished(child)[0] == 0
    assert began_anew(place, "warmstart_external", cloned=False, loaded=True)
    assert list((place.checkpoints / "archive").rglob("*_00000120.pt"))


@SLOW
@pytest.mark.parametrize(("answer", "cloned"), [("1", False), ("2", True)])
def test_with_a_model_alone(situation, finished, answer, cloned):
    place, arguments, prompt = situation("model")
    child = place.terminal(*arguments)
    child.expect(prompt)
    child.sendline("3")
    child.expect("'3' is none of 1, 2, q")
    child.sendline(answer)
    assert finished(child)[0] == 0
    assert began_anew(place, "warmstart_external", cloned=cloned, loaded=True)


@SLOW
@pytest.mark.parametrize("answer", ["1", "2"])
def test_with_a_checkpoint_alone(situation, finished, answer):
    place, arguments, prompt = situation("checkpoint")
    child = place.terminal(*arguments)
    child.expect(prompt)
    child.sendline(answer)
    assert finished(child)[0] == 0
    if answer == "1":
        assert resumed(place)
    else:
        assert began_anew(place, "warmstart_training_optimized", cloned=True, loaded=False)
        assert list((place.checkpoints / "archive").rglob("*_00000120.pt"))


@SLOW
def test_with_nothing_there_nobody_is_asked(place, finished):
    assert finished(place.terminal("--total-requests", "150"))[0] == 0
    assert began_anew(place, "warmstart_training_optimized", cloned=True, loaded=False)


@SLOW
@pytest.mark.parametrize("row", ["both", "checkpoint"])
def test_force_warmstart_asks_nothing(situation, finished, row):
    place, arguments, _ = situation(row)
    assert finished(place.terminal(*arguments, "--force-warmstart"))[0] == 0
    kind = "warmstart_external" if row == "both" else "warmstart_training_optimized"
    assert began_anew(place, kind, cloned=True, loaded=row == "both")


@SLOW
@pytest.mark.parametrize(
    ("row", "flags", "outcome"),
    [
        ("checkpoint", ["--resume", "latest"], "resumed"),
        ("both", ["--yes"], "resumed"),
        ("both", ["--resume", "auto", "--use-external"], "resumed"),
        ("both", ["--use-external"], "as it is"),
        ("both", ["--resume", "never", "--skip-bc-training"], "as it is"),
        ("model", ["--yes"], "as it is"),
        ("model", ["--skip-bc-training"], "as it is"),
        ("checkpoint", ["--yes"], "resumed"),
        ("checkpoint", ["--resume", "outputs/checkpoints/checkpoint_step_00000100.pt"], "resumed"),
        ("checkpoint", ["--resume", "never", "--skip-bc-training"], "bare"),
    ],
)
def test_flags_answer_without_a_terminal(situation, row, flags, outcome):
    place, arguments, _ = situation(row)
    result = place.run(*arguments, *flags)
    assert result.returncode == 0, result.stderr
    if outcome == "resumed":
        assert resumed(place)
    elif outcome == "as it is":
        assert began_anew(place, "warmstart_external", cloned=False, loaded=True)
    else:
        assert began_anew(place, "warmstart_training_optimized", cloned=False, loaded=False)


@pytest.mark.parametrize(
    "row", ["both", *(pytest.param(row, marks=SLOW) for row in ("model", "checkpoint"))]
)
def test_without_a_terminal_the_flags_are_listed_and_nothing_is_written(situation, row):
    place, arguments, _ = situation(row)
    before = place.files()
    result = place.run(*arguments)
    assert result.returncode == 2
    assert "no terminal to ask" in result.stderr
    flags = {"--force-warmstart", "--yes"}
    flags |= {"--use-external"} if row != "checkpoint" else set()
    flags |= {"--resume latest", "--resume PATH", "--resume auto"} if row != "model" else set()
    assert all(flag in result.stderr for flag in flags)
    assert place.files() == before


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(situation):
    place, arguments, _ = situation("model")
    change = "actor_critic_architecture.hidden_size=16"
    result = place.run(*arguments, "--yes", "--set", change)
    assert result.returncode == 2
    assert "hidden_size is 8 in the file and 16 here" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (place.path / "outputs").exists()


def test_a_file_that_is_no_model_is_named(place):
    (place.path / "bad.pt").write_bytes(b"no model")
    result = place.run("--external-pretrain", "bad.pt", "--yes")
    assert result.returncode == 2
    assert "bad.pt: " in result.stderr
    assert not (place.path / "outputs").exists()


@SLOW
def test_a_key_of_the_config_answers_as_well(trained):
    config = json.loads((trained.path / "small.json").read_text())
    config["checkpointing"]["resume_step"] = 100
    (trained.path / "small.json").write_text(json.dumps(config))
    result = trained.run("--total-requests", "150")
    assert result.returncode == 0, result.stderr
    assert "checkpoint_step_00000100.pt" in trained.log()
    assert resumed(trained)


def test_the_help_shows_the_values_of_the_config(place):
    text = " ".join(re.sub(r"[│\s]+", " ", place.run("--help").stdout).split())
    assert "default: training.total_requests 120" in text
    assert "default: warmstart.demo_requests 16, warmstart.labels_per_round 32" in text
    assert "default: workload.qps 24.5" in text


@SLOW
def test_verbose_says_more(place):
    result = place.run("--verbose", "--total-requests", "20")
    assert result.returncode == 0
    assert "warm start, round 0" in result.stderr


@SLOW
def test_paths_are_taken_as_they_are_written(situation):
    """The model's path has a space and an umlaut; the run's folder as well."""
    place, arguments, _ = situation("model")
    result = place.run(*arguments, "--use-external", "--output-dir", "zweiter Läuf/run")
    assert result.returncode == 0, result.stderr
    run = Path(place.path / "zweiter Läuf" / "run")
    assert {"policy.pt", "pretrained_actor.pt", "config.json"} <= {p.name for p in run.iterdir()}
    assert place.manifest["run_dir"] == "zweiter Läuf/run"


def test_the_script_asks_the_same(trained, asked, finished):
    child = trained.with_scripts().script("train_ppo_warmstart_optimized.sh")
    child.expect("checkpoint_step_00000120.pt")
    asked(child, r"\[1/2/q\]")
    child.sendintr()
    assert finished(child)[0] == 130
