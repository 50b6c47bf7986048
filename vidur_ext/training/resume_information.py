"""What an operator wants to know of a checkpoint before continuing from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ppo_scheduler.checkpoint.names import LATEST
from ppo_scheduler.checkpoint.store import CheckpointInfo
from ppo_scheduler.config.resume_rules import Effect, differences


def describe(info: CheckpointInfo, settings: Mapping[str, Any], now: datetime) -> str:
    """Return the information block about a checkpoint.

    Args:
        settings: those a training would go on with, by their dotted names.
        now: present time, for the checkpoint's age.
    """
    manifest = info.manifest
    requests = manifest.facts.get("requests_done", manifest.global_step)
    age = _age(now, datetime.fromisoformat(manifest.created_at))
    first, *more = _changes(manifest.settings, settings)
    return "\n".join(
        [
            f"  latest.pt    {_target(info.path.parent / LATEST)}",
            f"  checkpoint   {info.path}",
            f"  PPO step     {manifest.ppo_step}",
            f"  decisions    {manifest.global_step}; {requests} requests of the stream",
            f"  age          {age} ({manifest.created_at}, saved because of: {manifest.reason})",
            f"  size         {manifest.size_bytes / 1e6:.2f} MB",
            f"  run folder   {manifest.run_dir}",
            f"  settings     {first}",
            *(f"               {change}" for change in more),
        ]
    )


def _target(link: Path) -> str:
    if link.is_symlink():
        return f"-> {os.readlink(link)}" + ("" if link.exists() else " (which is not there)")
    return "is no link" if link.exists() else "missing; the newest good checkpoint counts"


def _age(now: datetime, created: datetime) -> str:
    seconds = int((now - created).total_seconds())
    if seconds < 0:
        return "saved in the future by this machine's clock"
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60:02d} min" if seconds >= 60 else f"{seconds} s"


def _changes(saved: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    if not saved:
        return ["not recorded in this checkpoint"]
    changes = differences(saved, settings)
    listed = [str(change) for change in changes if change.rule.effect is not Effect.NONE]
    if len(listed) < len(changes):
        listed.append(f"{len(changes) - len(listed)} changed that do not concern learning")
    return listed or ["as they are now"]
