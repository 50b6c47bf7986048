"""A gateway sees what the simulated router saw, and refuses what no cluster can report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ppo_scheduler.deployed import RoutingPolicy
from ppo_scheduler.deployed.policy import NEAR_TIE
from ppo_scheduler.errors import UserError
from ppo_scheduler.sealed_json import sealed
from vidur_ext.gateway.router import ClusterRouter
from vidur_ext.routing.view import ClusterSnapshot, Completion, Quantity, QueuedRequest
from vidur_ext.workload.prompts import Prompts
from vidur_ext.workload.request_table import RequestTable


def cluster(now: float = 10.0, replicas: int = 3, **rows: float) -> ClusterSnapshot:
    """Return replicas with 0, 1, 2, ... waiting requests, or with other quantities."""
    table = np.zeros((len(Quantity), replicas))
    table[Quantity.WAITING] = np.arange(replicas)
    table[Quantity.KV_BLOCKS_TOTAL] = 1000.0
    table[Quantity.BATCH_CAPACITY] = 128.0
    for name, value in rows.items():
        table[Quantity[name.upper()], -1] = value
    return ClusterSnapshot(now, table)


class Beside:
    """Routes in the simulation as a gateway does, and asks torch about the same arrivals."""

    def __init__(
        self, policy, router: ClusterRouter, deployed: RoutingPolicy, knows: bool = False
    ) -> None:
        self._policy, self._router, self._deployed = policy, router, deployed
        self._knows = knows
        self.choices: list[int] = []
        self.sent_again = 0
        """Requests of sessions that had one before."""

    def observe(self, snapshot, interval, request) -> None:
        if request is not None:
            self.sent_again += request.session_replica >= 0
            self._seen = self._router.see(
                snapshot_without_oracle(snapshot),
                request.prompt_tokens,
                interval.completions,
                request.found_tokens if self._knows else None,
                request.session_replica if self._knows else None,
            )

    def decide(self, observation, reward, done) -> np.ndarray:
        np.testing.assert_array_equal(self._seen.replicas, observation.replicas[0])
        np.testing.assert_array_equal(self._seen.context, observation.context[0])
        logits = self._policy.evaluate(self._policy.normalize(observation))[0][0]
        choice = self._deployed.route(self._seen)
        assert logits.max() - logits[choice] <= NEAR_TIE
        self.choices.append(choice)
        return np.array([choice])


def snapshot_without_oracle(snapshot: ClusterSnapshot) -> ClusterSnapshot:
    table = snapshot.table.copy()
    table[Quantity.REMAINING_OUTPUT_TOKENS] = 0.0
    return replace(snapshot, table=table)


@pytest.mark.parametrize("observation", [{}, {"queue_slots": 4, "history": False}])
def test_it_sees_and_routes_as_in_the_simulation(
    observation, make_config, make_requests, build_simulation, exported, trained_policy
) -> None:
    config = make_config(
        observation=observation, cluster={"devices": ["a100", "h100", "a100"], "num_replicas": 3}
    )
    file = exported(config)
    beside = Beside(trained_policy(config), ClusterRouter.load(file), RoutingPolicy.load(file))
    simulation = build_simulation(config, "ppo_modular", make_requests(80, qps=40.0))
    simulation.scheduler.attach(beside, config)
    simulation.run()
    assert len(beside.choices) == 80
    assert len(set(beside.choices)) > 1, "it must have had to choose"


KNOWING = {
    "observation": {"prefix_knowledge": "exact"},
    "cluster": {"replica_scheduler": "vllm_v1", "num_replicas": 3},
}


def test_a_policy_that_knows_of_prefix_caches_is_told_what_is_found(
    make_config, build_simulation, exported, trained_policy
) -> None:
    config = make_config(**KNOWING)
    file = exported(config)
    router, deployed = ClusterRouter.load(file), RoutingPolicy.load(file)
    beside = Beside(trained_policy(config), router, deployed, knows=True)
    rows = [[(request % 3, 200), (10 + request, 50)] for request in range(40)]
    prompts = Prompts.of(rows, [100 + request for request in range(40)])
    table = RequestTable(np.arange(40) * 0.02, prompts.lengths, np.full(40, 20), prompts)
    simulation = build_simulation(config, "ppo_modular", table)
    simulation.scheduler.attach(beside, config)
    simulation.run()
    assert len(beside.choices) == 40
    assert simulation.found_tokens.any()
    assert beside.sent_again, "sessions go on"


@pytest.mark.parametrize(
    ("knowing", "found_tokens", "message"),
    [
        (False, [0, 0, 0], "found_tokens: this policy knows nothing of prefix caches"),
        (True, None, "found_tokens holds 0 numbers: this policy knows of prefix caches"),
        (True, [16, 0], "found_tokens holds 2 numbers: .* each of the 3 replicas"),
        (True, [16, 0, -1], r"found_tokens=\[16.0, 0.0, -1.0\] of a prompt of 32: at least one"),
        (True, [16, 32, 0], r"found_tokens=\[16.0, 32.0, 0.0\] of a prompt of 32: at least one"),
        (True, [math.nan, 0, 0], r"found_tokens=\[nan, 0.0, 0.0\]"),
    ],
)
def test_what_cannot_be_found_is_refused(make_config, exported, knowing, found_tokens, message):
    groups = KNOWING if knowing else {"cluster": {"num_replicas": 3}}
    router = ClusterRouter.load(exported(make_config(**groups)))
    with pytest.raises(UserError, match=message):
        router.see(cluster(), 32, found_tokens=found_tokens)


@pytest.mark.parametrize(
    ("knowing", "session_replica", "message"),
    [
        (False, 0, "session_replica: this policy does not go by sessions"),
        (True, None, "session_replica=None: .* give the replica, 0 to 2, "),
        (True, 3, "session_replica=3: "),
        (True, -2, "session_replica=-2: "),
    ],
)
def test_what_no_session_can_have_is_refused(
    make_config, exported, knowing, session_replica, message
):
    groups = KNOWING if knowing else {"cluster": {"num_replicas": 3}}
    router = ClusterRouter.load(exported(make_config(**groups)))
    found = [0, 0, 0] if knowing else None
    with pytest.raises(UserError, match=message):
        router.see(cluster(), 32, found_tokens=found, session_replica=session_replica)


def test_a_policy_that_knows_nothing_takes_all_that_is_pending_for_uncached(make_config, exported):
    file = exported(make_config(cluster={"num_replicas": 3}))
    seen = [
        ClusterRouter.load(file).see(
            cluster(pending_prefill_tokens=900, uncached_prefill_tokens=uncached), 100
        )
        for uncached in (0, 900)
    ]
    np.testing.assert_array_equal(seen[0].replicas, seen[1].replicas)


def test_route_is_the_policy_of_what_is_seen(make_config, exported) -> None:
    file = exported(make_config())
    done = (Completion(e2e_s=3.0, ttft_s=0.5, tbt_s=0.1, output_tokens=30),)
    seen = ClusterRouter.load(file).see(cluster(), 400, done)
    assert ClusterRouter.load(file).route(cluster(), 400, done) == RoutingPolicy.load(file).route(
        seen
    )


def test_what_a_first_token_weighs_is_a_dial_of_policies_that_see_it(make_config, exported):
    seeing = {"observation": {"objective": True}, "lookahead": {"ttft_weight": 3.0}}
    file = exported(make_config(**seeing))
    seen = [
        ClusterRouter.load(file, weight).see(cluster(), 100).context for weight in (None, 3.0, 19.0)
    ]
    assert seen[0].tolist() == seen[1].tolist()
    assert seen[0][-1] == pytest.approx(math.log(4.0))
    assert seen[2][-1] == pytest.approx(math.log(20.0))


@pytest.mark.parametrize(
    ("sees", "weight", "message"),
    [
        (False, 3.0, "ttft_weight=3: this policy does not see it"),
        (True, -1.0, "ttft_weight=-1.0: a weight is finite and not negative"),
        (True, math.nan, "ttft_weight=nan"),
    ],
)
def test_a_weight_that_cannot_be_is_refused(make_config, exported, sees, weight, message):
    file = exported(make_config(observation={"objective": sees}))
    with pytest.raises(UserError, match=message):
        ClusterRouter.load(file, weight)


def test_completions_and_queues_are_seen(make_config, exported) -> None:
    file = exported(make_config())
    policy, router = RoutingPolicy.load(file), ClusterRouter.load(file)
    context = [feature.name for feature in policy.context_features]
    replica = [feature.name for feature in policy.replica_features]
    router.see(cluster(now=10.0), 100)
    queues = ((), (QueuedRequest(0.5, 300),), (QueuedRequest(2.0, 70), QueuedRequest(1.5, 90)))
    done = (
        Completion(e2e_s=3.0, ttft_s=0.5, tbt_s=0.0, output_tokens=30),
        Completion(e2e_s=5.0, ttft_s=0.7, tbt_s=0.0, output_tokens=50),
    )
    seen = router.see(replace(cluster(now=10.5), queues=queues), 200, done)
    assert seen.context[context.index("prompt_tokens")] == 200
    assert seen.context[context.index("latency_s")] == 4.0
    assert seen.context[context.index("ttft_s")] == pytest.approx(0.6)
    assert seen.context[context.index("qps")] == pytest.approx(2.0)
    assert seen.replicas[:, replica.index("queue0_prompt_tokens")].tolist() == [0, 300, 70]
    assert seen.replicas[:, replica.index("queue1_age_s")].tolist() == [0, 0, 1.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((cluster(replicas=4), 100), "for another number of replicas export with the --config"),
        ((cluster(waiting=math.nan), 100), "waiting of replica 2 is nan"),
        ((cluster(running=-1), 100), "running of replica 2 is -1.0"),
        ((cluster(kv_blocks_total=0), 100), "kv_blocks_total of replica 2 is 0.0"),
        ((cluster(batch_capacity=0), 100), "batch_capacity of replica 2 is 0.0"),
        ((cluster(), 0), "prompt_tokens=0: a prompt has at least one token"),
        ((cluster(now=9.0), 100), "now=9.0, and the last decision was at 10.0"),
        ((cluster(now=math.nan), 100), "now=nan"),
        ((cluster(), 100, [Completion(1.0, 2.0, 0.0, 5)]), "to the first token not above"),
        ((cluster(), 100, [Completion(math.nan, 0.1, 0.0, 5)]), "its latencies are finite"),
        ((cluster(), 100, [Completion(1.0, 0.1, 0.0, 0)]), "at least one token of output"),
    ],
)
def test_what_cannot_be_is_refused_and_not_remembered(
    arguments, message, make_config, exported
) -> None:
    file = exported(make_config())
    told, spared = ClusterRouter.load(file), ClusterRouter.load(file)
    for router in (told, spared):
        router.see(cluster(), 100)
    with pytest.raises(UserError) as refusal:
        told.route(*arguments)
    assert message in str(refusal.value)
    for one, other in zip(told.see(cluster(11.0), 50), spared.see(cluster(11.0), 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_policy_that_sees_output_lengths_has_no_gateway(make_config, exported) -> None:
    file = exported(make_config(observation={"output_length": "oracle"}))
    with pytest.raises(UserError, match="sees true output lengths, which no gateway knows"):
        ClusterRouter.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda origin: origin.clear(), r"does not say how .* \(origin\.trained: Field required\)"),
        (lambda origin: origin.update(block_size=0.5), r"origin\.block_size"),
        (lambda origin: origin["observation"].update(queue_slots=3), "not those that this version"),
        (lambda origin: origin["replicas"][1]["iteration_s"].pop(), "of another length"),
        (lambda origin: origin["replicas"][1]["rates"].pop("slope"), "have other rates"),
        (lambda origin: origin["replicas"].clear(), r"origin\.replicas"),
    ],
)
def test_a_file_that_does_not_say_what_is_seen_is_refused(
    change, message, make_config, exported
) -> None:
    file = exported(make_config())
    tree = json.loads(file.read_text(encoding="utf-8"))
    del tree["sha256"]
    change(tree["origin"])
    file.write_bytes(sealed(json.dumps(tree, indent=2).encode(), "sha256"))
    with pytest.raises(UserError, match=message) as refusal:
        ClusterRouter.load(file)
    assert str(refusal.value).startswith(f"{file}: ")
    RoutingPolicy.load(file)  # who computes features by himself does not mind


_ROUTE = """
import sys
import numpy as np
from vidur_ext.gateway.router import ClusterRouter
from vidur_ext.routing.view import ClusterSnapshot, Quantity
table = np.zeros((len(Quantity), 3))
table[Quantity.KV_BLOCKS_TOTAL] = table[Quantity.BATCH_CAPACITY] = 100.0
assert ClusterRouter.load(sys.argv[1]).route(ClusterSnapshot(1.0, table), 100) in (0, 1, 2)
assert not {"torch", "vidur"} & set(sys.modules)
"""


def test_it_needs_neither_torch_nor_vidur(make_config, exported) -> None:
    subprocess.run([sys.executable, "-c", _ROUTE, exported(make_config())], check=True)
