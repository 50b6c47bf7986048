"""``vidur-ppo saturation``: what a cluster sustains, and what a workload asks of it."""

from __future__ import annotations

from typing import Annotated

from vidur_ext.commands.options import DEFAULT_CONFIG, Config, Json, set_option
from vidur_ext.commands.printing import Document, console, facts_table, show
from vidur_ext.config.loading import load_config


def saturation(
    config: Config = None,
    set_: Annotated[list[str] | None, set_option("Override one key, e.g. workload.qps=30")] = None,
    as_json: Json = False,
) -> None:
    """Find the highest arrival rate that the cluster sustains, for requests of the workload."""
    loaded = load_config(config or DEFAULT_CONFIG, set_ or [])
    # The simulator takes seconds to import: not before the command line is known good.
    from vidur_ext.evaluation.saturation import ROUTER, saturation_of

    found = saturation_of(loaded)
    document = {
        "sustained_requests_per_s": found.sustained,
        "router": ROUTER,
        "rates_requests_per_s": found.rates,
        "loads": found.loads,
    }
    show(document, _print, as_json=as_json)


def _print(document: Document) -> None:
    rates = " -> ".join(f"{rate:.4g}" for rate in document["rates_requests_per_s"])
    loads = " -> ".join(f"{load:.1%}" for load in document["loads"])
    facts = {
        "saturation": f"{document['sustained_requests_per_s']:.4g} requests/s",
        "routed by": document["router"],
        "workload": f"{rates} requests/s",
        "load": loads,
    }
    console().print(facts_table(facts))
