"""The page of features and rewards says what the code says."""

from __future__ import annotations

from pathlib import Path

from vidur_ext.routing.reference import features_reference

PAGE = Path(__file__).resolve().parents[3] / "docs" / "features.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == features_reference(), (
        "docs/features.md differs from the code; renew it: "
        "python -m vidur_ext.routing.reference > docs/features.md"
    )
