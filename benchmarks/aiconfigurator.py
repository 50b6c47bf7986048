"""The wheel of NVIDIA's AIConfigurator (Apache-2.0): downloaded, never installed, only read."""

from __future__ import annotations

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

from ppo_scheduler.errors import UserError

WHEEL = "aiconfigurator-core==0.12.0"
SYSTEMS = "aiconfigurator_core/systems"


def add_wheel_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--wheel``."""
    parser.add_argument("--wheel", type=Path, help=f"a wheel of {WHEEL} that is there already")


def wheel_at_hand(given: Path | None, folder: Path) -> Path:
    """Return the wheel that was given, or download it, and nothing that it needs, to a folder.

    Raises:
        UserError: there is no such file, or pip could not download it.
    """
    if given is not None:
        if not zipfile.is_zipfile(given):
            raise UserError(f"{given}: is no wheel; leave --wheel out to download {WHEEL}")
        return given
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise UserError(f"pip could not download {WHEEL}; name a copy of it with --wheel")
    [wheel] = folder.glob("*.whl")
    return wheel
