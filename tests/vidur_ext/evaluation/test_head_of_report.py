"""A report says which run it is about, and when, where and with what it was made."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from html import escape
from pathlib import Path

import pytest

from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.evaluation.report.head import Head
from vidur_ext.evaluation.report.writer import write_report
from vidur_ext.run_folder import RunFolder

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=timezone.utc)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.at(tmp_path / "run_20261125_110000")
    folder.identify()
    folder.tensorboard.mkdir()
    return folder


@pytest.fixture
def head(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Head:
    monkeypatch.setattr(sys, "argv", ["/somewhere/vidur-ppo", "compare", "--output-dir", "a b"])
    return Head.of(TrainingConfig(), {"ppo": run.policy}, RunFolder(tmp_path / "a b"), NOON, 49.4)


def test_the_head_names_run_date_command_machine_and_files(
    head: Head, run: RunFolder, tmp_path: Path
) -> None:
    assert head.name == "run_20261125_110000"
    assert head.facts["Report in"] == str(tmp_path / "a b")
    assert head.facts["Made"] == "2026-11-25 12:00 UTC"
    assert head.facts["Command"] == "vidur-ppo compare --output-dir 'a b'"
    assert head.facts["Policy file of ppo"] == str(run.policy)
    assert head.facts["TensorBoard"] == f"tensorboard --logdir {run.tensorboard}"
    assert " x " in head.facts["Machine"]
    assert head.facts["Cost of a decision"].startswith("49 µs for one request among 4 replicas")
    assert TrainingConfig.model_validate_json(head.config) == TrainingConfig()


def test_a_policy_that_no_run_made_goes_by_its_file(tmp_path: Path) -> None:
    head = Head.of(
        TrainingConfig(), {"ppo": tmp_path / "mine\x1b.pt"}, RunFolder(tmp_path / "new"), NOON, 49.4
    )
    assert head.name.startswith("mine")
    assert "\x1b" not in head.name + "".join(head.facts.values())
    assert "TensorBoard" not in head.facts


def test_the_page_shows_the_head_and_the_json_does_not(
    head: Head, tmp_path: Path, small_comparison, small_runs
) -> None:
    paths = write_report(small_comparison, small_runs, tmp_path, {}, head=head)
    page = paths.html.read_text(encoding="utf-8")
    assert "<title>run_20261125_110000: scheduler comparison</title>" in page
    assert "<h1>run_20261125_110000: scheduler comparison</h1>" in page
    for name, text in head.facts.items():
        assert name in page
        assert escape(text, quote=False).replace("'", "&#39;") in page
    assert "total_requests" in page
    document = paths.json.read_text(encoding="utf-8")
    assert json.loads(document) == {**small_comparison.to_dict(), "facts": {}}
