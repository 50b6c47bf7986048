"""What docs/deploy.md shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidur_ext.routing.view import Quantity

PAGE = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_routes(example, make_config, exported, monkeypatch) -> None:
    file = exported(make_config(cluster={"num_replicas": 4}))
    assert file.name == "router.json"
    monkeypatch.chdir(file.parent)
    names: dict[str, object] = {}
    exec(compile(example, "docs/deploy.md", "exec"), names)
    assert names.get("replica", 0) in range(4)


def test_every_quantity_has_a_source() -> None:
    assert not [quantity.name for quantity in Quantity if f"`{quantity.name}`" not in PAGE]
