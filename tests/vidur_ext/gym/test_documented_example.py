"""What docs/gymnasium.md shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "gymnasium.md"


def test_the_example_plays_an_episode(capsys):
    [example] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(example, str(PAGE), "exec"), {})
    numbers = [float(text) for text in re.findall(r"[\d.]+", capsys.readouterr().out)]
    assert len(numbers) == 8
    assert all(0.1 < number < 60.0 for number in numbers)
