"""Writing the results of a suite: JSON for programs, a page for people, Markdown for the docs."""

from __future__ import annotations

import json
from pathlib import Path

from ppo_scheduler.files import check_place, disk_errors, write_file
from vidur_ext.suite.folder import SuiteFolder
from vidur_ext.suite.report.markdown import render_markdown
from vidur_ext.suite.report.page import render_page
from vidur_ext.suite.report.plot import draw_plot
from vidur_ext.suite.results import SuiteResult

_REFUSED = "the results cannot be written there", "Name another file"


def check_copies(*copies: Path | None) -> None:
    """Check before the first training that what it is all for can be written.

    Raises:
        UserError: a file cannot.
    """
    for copy in copies:
        if copy is not None:
            with disk_errors(copy, *_REFUSED):
                check_place(copy)


def write_results(
    result: SuiteResult,
    folder: SuiteFolder,
    json_copy: Path | None = None,
    markdown_copy: Path | None = None,
) -> None:
    """Write ``results.json``, ``.md``, ``.png`` and ``.html`` to the suite's folder.

    Every file appears whole or not at all; those of an earlier report are replaced.

    Args:
        json_copy: file that gets the JSON as well.
        markdown_copy: file that gets the Markdown as well; its plot lies beside it under its name.

    Raises:
        UserError: a file cannot be written.
    """
    plot = draw_plot(result)
    document = json.dumps(result.to_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    files = {folder.results("html"): render_page(result, plot).encode()}
    for copy in (folder.results("json"), json_copy):
        if copy is not None:
            files[copy] = document.encode()
    for copy in (folder.results("md"), markdown_copy):
        if copy is not None:
            image = copy.with_suffix(".png")
            files[copy] = render_markdown(result, image.name).encode()
            files[image] = plot
    for path, content in files.items():
        with disk_errors(path, *_REFUSED):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
