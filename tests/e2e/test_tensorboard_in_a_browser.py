"""What a person sees of a training that was stopped and resumed: TensorBoard in a browser.

``TENSORBOARD_SCREENSHOT=docs/images/tensorboard_resumed.png`` keeps the picture of the page there.
"""

from __future__ import annotations

import html
import itertools
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROLLOUT = 32
FIRST_UPDATE = 47
TOTAL = 400
TAG = "Rollout/RewardMean"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="there is no Chromium: on Debian and Ubuntu, apt-get install chromium",
    ),
]


@pytest.fixture
def browse(tmp_path):
    """Open an address in a headless browser; return the page's text as the browser holds it."""

    def open_page(address: str, *options: str) -> str:
        run = subprocess.run(
            [
                str(CHROMIUM),
                *("--headless", "--disable-gpu", "--no-first-run", "--disable-sync"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--disable-quic", "--no-proxy-server", f"--user-data-dir={tmp_path / 'browser'}"),
                # Its sandbox refuses to run as root, as it does in containers.
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                *("--window-size=1280,900", "--dump-dom", *options, address),
            ],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    return open_page


@pytest.fixture
def resumed(place, until):
    """Return a project with a training that was stopped by SIGTERM and resumed, and where."""
    place.configure(warmstart={"enabled": False}).with_scripts()
    training = place.start("--total-requests", "100000")
    until(lambda: max(place.steps, default=0) >= 100, training)
    training.terminate()
    training.communicate(timeout=60)
    assert place.manifest["reason"] == "signal"
    stopped_at = place.manifest["global_step"]
    result = place.run("--resume", "latest", "--total-requests", str(stopped_at + TOTAL))
    assert result.returncode == 0, result.stderr
    return place, stopped_at


@pytest.fixture
def address(resumed, finished):
    """Serve the project's runs by the script until the test has ended."""
    place, _ = resumed
    server = place.script("tensorboard.sh")
    server.expect(r"http://127\.0\.0\.1:\d+/")
    yield server.match[0]
    server.sendintr()
    status, text = finished(server)
    assert (status, "stopped by SIGINT; TensorBoard has ended" in text) == (130, True)


def wait_until_loaded(url: str) -> None:
    """Return when TensorBoard has read the folder; it answers "not found" before."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(1000):
        try:
            direct.open(url, timeout=60).close()
            return
        except urllib.error.HTTPError:
            continue
    raise AssertionError(f"{url} is not served")


def test_the_curve_goes_on_where_the_training_stopped(resumed, address, browse, tmp_path):
    place, stopped_at = resumed
    run = place.runs[0].relative_to(place.path / "outputs") / "tensorboard"
    points = f"data/plugin/scalars/scalars?run={quote(str(run), safe='')}&tag={quote(TAG, safe='')}"
    wait_until_loaded(address + points)

    page = browse(address + points)
    document = json.loads(html.unescape(re.search(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL)[1]))
    steps = [step for _, step, _ in document]
    assert steps == list(range(FIRST_UPDATE, steps[-1] + 1, ROLLOUT)), "no gap, none repeated"
    assert steps[0] < stopped_at < steps[-1]
    assert stopped_at + TOTAL - ROLLOUT < steps[-1] <= stopped_at + TOTAL

    picture = Path(os.environ.get("TENSORBOARD_SCREENSHOT", tmp_path / "tensorboard.png")).resolve()
    page = browse(
        # Without a graphics card its curves are drawn as SVG, or not at all.
        f"{address}?forceSVG=true&smoothing=0&tagFilter={quote('Rollout/Re|latency_p')}#timeseries",
        "--virtual-time-budget=20000",
        f"--screenshot={picture}",
    )
    assert str(run) in html.unescape(page)
    assert TAG in page
    lines = [
        [float(x) for x in re.findall(r"[ML]([-.\d]+),", path)]
        for path in re.findall(r'<path d="(M[^"]*)"[^>]* stroke', page)
    ]
    drawn = next(line for line in lines if len(line) == len(steps))
    apart = [right - left for left, right in itertools.pairwise(drawn)]
    assert apart == pytest.approx([apart[0]] * len(apart), abs=0.01), "a corner for every step"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert 10_000 < picture.stat().st_size < 300_000
