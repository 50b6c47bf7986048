"""Options that cannot both be meant are refused, never ranked in silence."""

from __future__ import annotations

import sys

import pytest

from vidur_ext import cli


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Run ``vidur-ppo``, which must refuse and leave nothing; return what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "trace.csv").write_text(
        "arrived_at,num_prefill_tokens,num_decode_tokens\n"
        + "".join(f"{second},10,10\n" for second in range(400))
    )

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vidur-ppo", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2
        assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]
        return capsys.readouterr().err

    return run


TRACE = ("--trace", "trace.csv")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TRACE, "--qps", "22"), "--qps is for synthetic requests"),
        ((*TRACE, "--set", "workload.qps=22"), "has no effect with workload.source='trace'"),
        ((*TRACE, "--set", "workload.arrival=poisson"), "no effect with workload.source='trace'"),
        (("--set", "workload.holdout_fraction=0.5"), "no effect with workload.source='synthetic'"),
        (("--set", "workload.length_scale=1.0"), "no effect with workload.source='synthetic'"),
        (
            ("--set", "workload.source=chat", "--set", "workload.code_fraction=0.1"),
            "workload.code_fraction=0.1 has no effect with workload.source='chat'",
        ),
        ((*TRACE, "--set", "workload.source=synthetic"), "--trace and --set workload.source"),
        (
            ("--num-replicas", "4", "--set", "cluster.num_replicas=8"),
            "--num-replicas and --set cluster.num_replicas=8 both set cluster.num_replicas",
        ),
        (("--set", "training.seed=1", "--set", "training.seed=2"), "both set training.seed"),
        (("--seed", "1", "--set", "training.seed=2"), "both set training.seed"),
        (("--total-requests", "100", "--set", "training.total_requests=200"), "both set training"),
        (("--bc-epochs", "3", "--set", "warmstart.epochs=4"), "both set warmstart.epochs"),
        (("--skip-bc-training", "--set", "warmstart.enabled=true"), "both set warmstart.enabled"),
        (("--skip-bc-training", "--bc-epochs", "3"), "--bc-epochs is for cloning"),
        (("--skip-bc-training", "--demo-steps", "300"), "--demo-steps is for cloning"),
        (("--quiet", "--set", "monitoring.progress_bar=true"), "both set monitoring.progress_bar"),
        (("--resume", "latest", "--external-pretrain", "p.pt"), "--resume latest continues one"),
        (("--resume", "latest", "--set", "checkpointing.resume_step=5"), "each say how to begin"),
        (
            ("--resume", "never", "--set", "checkpointing.fork_from_checkpoint=a.pt"),
            "each say how to begin",
        ),
    ],
)
def test_train_says_which_options_contradict_each_other(refusal, arguments, message):
    assert message in refusal("train", *arguments)


@pytest.mark.parametrize("command", [("pretrain",), ("demos", "collect")])
def test_so_do_the_other_commands_with_shortcuts(refusal, command):
    text = refusal(*command, "--demo-steps", "64", "--set", "warmstart.labels_per_round=32")
    assert "--demo-steps and --set warmstart.labels_per_round=32 both set" in text


def test_saying_the_same_twice_is_no_contradiction(refusal):
    same = ("--seed", "1", "--set", "training.seed=1")
    assert "there is no such trace file" in refusal("train", *same, "--trace", "nowhere.csv")


def test_a_trace_that_is_missing_is_said_before_anything_is_asked(refusal):
    assert "nowhere.csv: there is no such trace file" in refusal("train", "--trace", "nowhere.csv")
