"""A resume reads a checkpoint twice, to answer where to begin and to go on, and parses it once."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ppo_scheduler.checkpoint.manifest import Description
from ppo_scheduler.checkpoint.reading import load_named
from ppo_scheduler.checkpoint.store import CheckpointStore
from vidur_ext.config.loading import dump_config

WATCHED = """
import json, os, sys
from pathlib import Path

opened = []

def hear(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".pt"):
        opened.append(os.path.basename(arguments[0]))

from vidur_ext.config.loading import load_config
from vidur_ext.runs.resume_choice import Wishes
from vidur_ext.runs.start import decide

config = load_config(Path(sys.argv[1]))
sys.addaudithook(hear)
start = decide(config, Wishes(resume=sys.argv[2]), None, lambda question: "1")
asked, opened[:] = list(opened), []

import torch
from vidur_ext.training.origin import find_origin

real, parsed = torch.load, []
torch.load = lambda *arguments, **keys: parsed.append(1) or real(*arguments, **keys)
origin = None
if start.load_checkpoint is not None:
    origin = find_origin(None, config, start.load_checkpoint)
told = {"asked": asked, "loaded": opened, "parsed": len(parsed)}
told["step"] = None if origin is None else origin.loaded.manifest.ppo_step
print(json.dumps(told))
"""
GOLDEN = (
    Path(__file__).parents[2]
    / "ppo_scheduler/checkpoint/golden/schema_5/checkpoint_step_00000050.pt"
)
OLD, NEW = "checkpoint_step_00000010.pt", "checkpoint_step_00000020.pt"


@pytest.fixture
def saved(make_config):
    config = make_config()
    with closing(CheckpointStore(config.checkpointing)) as store:
        for step in (10, 20):
            description = Description(
                ppo_step=step, global_step=step, reason="interval", run_dir="earlier",
                config_digest="0" * 64, num_replicas=3, val_score=None, versions={}, facts={},
                settings=config.settings(),
            )  # fmt: skip
            tree = load_named(GOLDEN).tree
            tree["learner"]["counters"] |= {"ppo_step": step, "global_step": step}
            store.publish(tree, description)
    return Path(config.checkpointing.checkpoint_dir)


@pytest.fixture
def watched(make_config, tmp_path):
    """Begin in a process of its own; return what it opened for the question and to go on."""

    def begin(resume: str, **groups: dict[str, object]) -> dict[str, object]:
        file = tmp_path / "config.json"
        file.write_text(dump_config(make_config(**groups)), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(file), resume],
            check=True,
            capture_output=True,
            text=True,
        )
        told: dict[str, object] = json.loads(done.stdout)
        return told

    return begin


@pytest.mark.parametrize("resume", ["latest", "ask"])
def test_the_newest_is_read_once_to_be_found_and_once_to_go_on(saved, watched, resume):
    assert watched(resume) == {"asked": [NEW], "loaded": [NEW], "parsed": 1, "step": 20}


def test_a_named_one_is_read_without_the_newest(saved, watched):
    told = {"asked": [OLD], "loaded": [OLD], "parsed": 1, "step": 10}
    assert watched(str(saved / OLD)) == told


def test_a_beginning_without_a_checkpoint_reads_none(saved, watched):
    assert watched("never") == {"asked": [], "loaded": [], "parsed": 0, "step": None}


def test_a_damaged_newest_is_passed_over_both_times(saved, watched):
    content = bytearray((saved / NEW).read_bytes())
    content[-1] ^= 1
    (saved / NEW).write_bytes(content)
    both = [NEW, OLD]
    assert watched("latest") == {"asked": both, "loaded": both, "parsed": 1, "step": 10}
