"""``python -m vidur_ext.suite.cell FOLDER``: one cell of a suite in a process of its own.

The folder holds the cell's config. What is there of an earlier process is gone on with.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vidur_ext.config.loading import load_config
from vidur_ext.exits import exit_status
from vidur_ext.processes import end_with_parent
from vidur_ext.run_folder import RunFolder
from vidur_ext.runs.pipeline import run_pipeline
from vidur_ext.runs.start import go_on

_PATIENCE_S = 60.0
"""For the process of a suite that was killed: it may still be saving."""


def run_cell(folder: RunFolder) -> None:
    """Train and judge, or what is left of it.

    Raises:
        UserError: another process works in the folder, or the run cannot go on.
        Interrupted: a signal asked to stop; the training has saved.
    """
    folder.wait_for_owner(_PATIENCE_S)
    run_pipeline(go_on(load_config(folder.config), folder), quiet=True)


def main() -> None:
    """Entry point; a cell ends with the suite that started it."""

    def program() -> None:
        end_with_parent()
        run_cell(RunFolder(Path(sys.argv[1])))

    sys.exit(exit_status(program))


if __name__ == "__main__":
    main()
