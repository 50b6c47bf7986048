"""``docs/features.md``, generated from the tables of what is seen and rewarded.

Renew it with ``python -m vidur_ext.routing.reference > docs/features.md``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from importlib import import_module

from vidur_ext.routing.components import COMPONENTS
from vidur_ext.routing.features import (
    COMMON,
    FIRST_SLOT,
    NEXT_SLOTS,
    REPLICA,
    Feature,
    Shown,
    outstanding,
    qps,
)
from vidur_ext.routing.rewards import MODES
from vidur_ext.routing.view import Past

_HEADER = """# Features and rewards

This page is generated from the code; `python -m vidur_ext.routing.reference > docs/features.md`
renews it. [method.md](method.md) says why they are what they are, [extending.md](extending.md) how
to add one. Features marked *oracle* are there with `observation.output_length: "oracle"`, those
marked *history* with `observation.history`, those marked *objective* with
`observation.objective`, and those marked *knowledge* with `observation.prefix_knowledge` other than
"none".
"""

_FOLLOWED = {"outstanding": outstanding, "qps": qps}
_MARKS = {
    Shown.ALWAYS: "",
    Shown.ORACLE: "*oracle*: ",
    Shown.HISTORY: "*history*: ",
    Shown.OBJECTIVE: "*objective*: ",
    Shown.KNOWLEDGE: "*knowledge*: ",
}


def features_reference() -> str:
    """Return the page as Markdown."""
    slots = [
        *(_row(feature, "queue0_") for feature in FIRST_SLOT),
        *(_row(feature, "queue1_") for feature in NEXT_SLOTS),
    ]
    parts = [
        _HEADER,
        "## Of every replica\n",
        _table(("feature", "unit", "what it is"), [_row(feature) for feature in REPLICA]),
        "`observation.queue_slots` waiting requests are described one by one, from the first, "
        "whose age is\n`oldest_wait_s`; here are those of two:\n",
        _table(("feature", "unit", "what it is"), slots),
        "## In common\n",
        _table(("feature", "unit", "what it is"), [_row(feature) for feature in COMMON]),
        "## Rewards\n",
        "`reward_config.mode` names what is rewarded, per interval between two decisions:\n",
        _table(("mode", "what is rewarded"), [_mode(name) for name in MODES]),
        "## Components\n",
        "Logged as `Reward/<component>` in every mode, whichever of them the reward is made of:\n",
        _table(
            ("component", "unit", "what it is"),
            [(f"`{one.name}`", one.unit, one.meaning) for one in COMPONENTS],
        ),
    ]
    return "\n".join(parts)


def meaning_of(feature: Feature) -> tuple[str, str]:
    """Return the unit and the meaning of a feature."""
    unit, meaning = feature.source.unit, feature.source.meaning
    if isinstance(feature.source, Past):
        followed = feature.name.removesuffix(f"_{feature.source.label}")
        unit, meaning = _FOLLOWED[followed].unit, f"{followed}: {meaning}"
        unit = f"({unit})²" if feature.source is Past.VARIANCE else unit
    if feature.above_least:
        meaning = f"{meaning}; above the replica with the least"
    return unit, meaning


def _row(feature: Feature, prefix: str = "") -> tuple[str, str, str]:
    unit, meaning = meaning_of(feature)
    return f"`{prefix}{feature.name}`", unit, _MARKS[feature.shown] + meaning


def _mode(name: str) -> tuple[str, str]:
    document = inspect.getdoc(import_module(MODES[name].__module__)) or ""
    return f"`{name}`", " ".join(document.replace("``", "`").split())


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print(features_reference(), end="")
