"""What ``--json`` prints is JSON, whatever a training measured."""

from __future__ import annotations

import json
import math

import pytest

from vidur_ext.commands.printing import print_json


def test_infinity_and_nan_become_texts_wherever_they_stand(capsys: pytest.CaptureFixture) -> None:
    nan, infinity = math.nan, math.inf
    print_json({"loss": nan, "kl": [0.5, -infinity], "parts": {"of": (infinity, 3, None, True)}})

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed == {"loss": "nan", "kl": [0.5, "-inf"], "parts": {"of": ["inf", 3, None, True]}}
