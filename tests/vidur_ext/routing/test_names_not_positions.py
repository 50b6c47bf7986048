"""Names and numbers never meet by position: with every table in another order all stays the same.

A copy of the code gets its columns in reverse order, engine's, router's and rates' alike. Then what
both simulators show, earn and choose must be the same, name by name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLASS = re.compile(r"^class \w+\(Column\):\n(?:    .*\n|\n(?=    ))+", re.M)
MEMBERS = re.compile(r"(?:^    [A-Z0-9_]+ = \"[^\"]*\", \"[^\"]*\"\n)+", re.M)

PROBE = """
import json
import numpy as np
from vidur_ext.config.sections import HEURISTIC_NAMES, PLANNERS, SCHEDULERS
from vidur_ext.config.training_config import TrainingConfig
from vidur_ext.engine import CompiledSimulation, layout
from vidur_ext.engine.environments import RoutingEnvironments
from vidur_ext.routing import estimator, view
from vidur_ext.vidur.engine_inputs import engine_cluster
from vidur_ext.vidur.simulation import routed_by, simulation_of
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable

rng = np.random.default_rng(0)
table = RequestTable(
    np.cumsum(rng.exponential(0.02, 40)), rng.integers(10, 900, 40), rng.integers(1, 60, 40)
)
config = TrainingConfig.model_validate({
    "cluster": {"num_replicas": 3, "num_blocks": 130},
    "workload": {"max_tokens": 1024},
    "observation": {"queue_slots": 2, "output_length": "oracle"},
    "reward_config": {"mode": "hybrid"},
    "parallel_training": {"num_envs": 1},
})
cluster = engine_cluster(config)
envs = RoutingEnvironments(cluster, config, 1)


def named(observation, reward):
    schema = envs.schema
    replicas = observation.replicas[0].T.tolist()
    return {
        "replicas": dict(zip(schema.replica, replicas)),
        "context": dict(zip(schema.context, observation.context[0].tolist())),
        "telemetry": dict(zip(schema.telemetry, observation.telemetry[0].tolist())),
        "reward": float(reward[0]),
    }


class Turns:
    def __init__(self):
        self.seen = []

    def observe(self, snapshot, interval, request):
        pass

    def decide(self, observation, reward, done):
        self.seen.append(named(observation, reward))
        return np.array([len(self.seen) % 3])


def engine_choices(name):
    # Planners simulate every choice to its end: in plain Python a few must do.
    requests = table.slice(0, 8) if name in PLANNERS else table
    simulation = CompiledSimulation(cluster, requests, name, ttft_weight=5.0)
    simulation.run()
    return simulation.routing.tolist()


def vidur_choices(name):
    simulation = simulation_of(config, name, table)
    simulation.run()
    return simulation.routing.tolist()


def served_by_v1():
    rows = [[(request % 3, 70), (10 + request, 9)] for request in range(40)]
    prompts = Prompts.of(rows, [100 + request for request in range(40)])
    shared = RequestTable(table.arrived_at, prompts.lengths, table.decode_tokens, prompts)
    groups = {"replica_scheduler": "vllm_v1", "num_replicas": 2, "num_blocks": 30}
    ours = TrainingConfig.model_validate({"cluster": groups, "workload": {"max_tokens": 256}})
    simulation = CompiledSimulation(engine_cluster(ours), shared, "least_outstanding")
    simulation.run()
    assert simulation.found_tokens.any()
    assert simulation.preemptions.any()
    return [simulation.completed_at.tolist(), simulation.found_tokens.tolist()]


turns, shown = Turns(), []
routed_by(turns, config, table).run()
envs.begin([table])
while envs.waiting:
    shown.append(named(envs.observation, envs.reward))
    envs.step(np.array([len(shown) % 3]))
columns = [one for module in (layout, estimator, view) for one in vars(module).values()
           if isinstance(one, type) and issubclass(one, view.Column) and one is not view.Column]
print(json.dumps({
    "engine": {name: engine_choices(name) for name in SCHEDULERS},
    "vidur": {name: vidur_choices(name) for name in HEURISTIC_NAMES},
    "served by V1": served_by_v1(),
    "engine shows": shown,
    "vidur shows": turns.seen,
    "order": {one.__name__: [column.name for column in one] for one in columns},
}))
"""


def copy_of_the_code(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "vidur_ext", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    return folder


def reverse_the_columns(root: Path) -> None:
    for file in (root / "vidur_ext").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        turned = CLASS.sub(lambda one: MEMBERS.sub(_reversed, one.group()), text)
        if turned != text:
            file.write_text(turned, encoding="utf-8")


def _reversed(members: re.Match[str]) -> str:
    return "".join(reversed(members.group().splitlines(keepends=True)))


def probe(root: Path) -> dict:
    """Return what a code shows and chooses; as plain Python, which needs no compilation."""
    places = {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}", "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=root,
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_order_of_all_columns_changes_nothing_by_name(tmp_path):
    plain = probe(ROOT)
    root = copy_of_the_code(tmp_path)
    reverse_the_columns(root)
    turned = probe(root)
    orders, turned_orders = plain.pop("order"), turned.pop("order")
    assert len(orders) >= 12
    assert turned_orders == {name: order[::-1] for name, order in orders.items()}
    assert turned == plain
