"""What tells one report from another: the run, and when, where and with what it was made."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ppo_scheduler.errors import printable
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.run_folder import RunFolder


@dataclass(frozen=True)
class Head:
    """Shown on the page alone: ``comparison.json`` is the same whenever it is made again.

    Attributes:
        name: of the run that the policies are of, or of the policy's file if no run made it; how
            many there are if they are of several.
        facts: date, command, machine and where the files lie.
        config: the run's whole config as JSON.
    """

    name: str
    facts: Mapping[str, str]
    config: str

    @classmethod
    def of(
        cls,
        config: TrainingConfig,
        policies: Mapping[str, Path],
        folder: RunFolder,
        now: datetime,
        decision_us: float,
    ) -> Head:
        """Return the head of a report that this process makes.

        Args:
            policies: file of each policy, by its name in the comparison; the first is under test.
            folder: that the report goes to.
            now: local time, with its zone.
            decision_us: what a decision of the policy under test costs [µs].
        """
        program, *arguments = sys.argv
        learned, policy = next((name, file.resolve()) for name, file in policies.items())
        run = RunFolder(policy.parent)
        name = policy.name if run.record is None else run.path.name
        if len({file.resolve().parent for file in policies.values()}) > 1:
            name = f"{len(policies)} policies"
        facts = {
            "Report in": str(folder.path.resolve()),
            "Made": f"{now:%Y-%m-%d %H:%M %Z}",
            "Command": shlex.join([Path(program).name, *arguments]),
            "Machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()} "
            f"{platform.release()}",
            "Cost of a decision": f"{decision_us:.0f} µs for one request among "
            f"{config.cluster.num_replicas} replicas: a pass of {learned} through its network, in "
            "torch, on this machine; an exported policy is faster",
            **{f"Policy file of {name}": str(file.resolve()) for name, file in policies.items()},
        }
        if run.tensorboard.exists():
            facts["TensorBoard"] = shlex.join(["tensorboard", "--logdir", str(run.tensorboard)])
        return cls(
            name=printable(name),
            facts={name: printable(text) for name, text in facts.items()},
            config=config.model_dump_json(indent=2),
        )
