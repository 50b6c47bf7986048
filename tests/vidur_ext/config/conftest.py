"""Config files as a user writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import load_config


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a config (text, or a tree to be JSON) to ``my.json`` in the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_config(content: object) -> Path:
        path = Path("my.json")
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write_config


@pytest.fixture
def complaint(write):
    """Return the text that loading a config fails with."""

    def load(content: object, *overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            load_config(None if content is None else write(content), overrides)
        return str(caught.value)

    return load
