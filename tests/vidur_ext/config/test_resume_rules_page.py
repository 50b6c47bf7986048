"""The page about resuming shows the very table that decides."""

from __future__ import annotations

from pathlib import Path

from vidur_ext.config.resume_rules import RULES

_PAGE = Path(__file__).parents[3] / "docs" / "resume.md"


def test_every_rule_is_on_the_page_in_its_order():
    page = _PAGE.read_text(encoding="utf-8")
    rows = [
        f"| {'all other keys' if rule.pattern == '*' else f'`{rule.pattern}`'} "
        f"| {rule.effect.value} | {rule.why} |"
        for rule in RULES
    ]
    assert "\n".join(rows) in page
