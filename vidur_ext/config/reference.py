"""``docs/config.md``, generated from the config's own types, ranges, rules and help."""

from __future__ import annotations

import inspect
import json
import typing

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from vidur_ext.config.fields import bounds, is_model, leaf_fields, type_text, unit
from vidur_ext.config.training_config import TrainingConfig

_HEADER = """# Configuration

This page is generated from the code; `vidur-ppo config schema --markdown > docs/config.md` renews
it.

One JSON file holds all groups; what it leaves out has its default. An unknown key, a wrong type, a
value out of range and keys that contradict each other are errors that name the file, the key, its
value, what is allowed and the nearest key there is.

Commands without `--config` take the program's own `configs/ppo_warmstart.json` (`--quick-test`:
`configs/quick_test.json`), whatever the working directory: that of the checkout, or its copy inside
the installed package. `vidur-ppo config show` prints it.

```
vidur-ppo config validate my.json           # "my.json: ok", or every problem and exit status 2
vidur-ppo config show --config my.json      # the effective configuration, every key
vidur-ppo config show --config my.json --changed --set workload.qps=20
vidur-ppo config schema                     # JSON schema, for an editor's completion
```

`validate` says as well what no run could end well with, as every run does before it begins: a
request that the cluster cannot serve, a trace that is missing or too short, memory that this
machine has not.

`--set group.key=value` overrides one key, the last one wins. The value is JSON (`20`, `false`,
`null`, `[0.7,1.0]`) or plain text. Lists are set as a whole.

Relative paths (`training.output_root`, `checkpointing.checkpoint_dir`, `workload.trace_file`,
`simulation.profile_dir`) count from the working directory, not from the config file. `~` at
their beginning is your home folder.

| file | what it is |
|---|---|
| `configs/ppo_warmstart.json` | every key with its default |
| `configs/quick_test.json` | the whole job made small, to see that all of it works |
| `configs/generalist.json` | to be taught on several clusters: `vidur-ppo pretrain --also` |
| `configs/scenarios/bursty.json` | the default load in harder bursts (coefficient of variation 4) |
| `configs/scenarios/code_heavy.json` | mostly code completion: long prompts, short outputs |
| `configs/scenarios/overload.json` | more requests than the cluster can serve: queues grow |
| `configs/scenarios/eight_replicas.json` | eight replicas at the same load per replica |
| `configs/scenarios/mixed_devices.json` | two H100 and two A100: fast and slow replicas |
| `configs/scenarios/slow_signals.json` | the router sees the cluster as of 100 ms ago |
| `configs/scenarios/heavy_tail.json` | a hundredth of the answers has a seventh of all tokens |
| `configs/scenarios/shifting.json` | 60, then 110, then 80 % of what can be served |
| `configs/scenarios/large.json` | sixteen replicas |
| `configs/scenarios/trace.json` | the Azure conversation trace, which has to be fetched |
| `configs/scenarios/chat.json` | long conversations on vLLM V1 with prefix caches |
| `configs/scenarios/api_templates.json` | calls that share templates |
| `configs/scenarios/agent.json` | coding agents: long contexts that grow step by step |
| `configs/scenarios/chat_mixed_devices.json` | the conversations on two H100 and two A100 |
| `configs/scenarios/api_slow_signals.json` | the calls, seen as of 100 ms ago, caches too |
| `configs/scenarios/mooncake.json` | Mooncake's synthetic trace, which has to be fetched |

A scenario names only what differs from the defaults.
"""


def config_reference() -> str:
    """Return the page as Markdown."""
    sections = [_HEADER]
    for group, field in TrainingConfig.model_fields.items():
        assert is_model(field.annotation)
        sections.append(f"## `{group}`\n\n{_section(field.annotation)}")
    sections.append(f"## Between groups\n\n{_rules(TrainingConfig)}")
    return "\n".join(sections)


def _section(model: type[BaseModel]) -> str:
    """Return a group's summary, table and rules, and those of the objects in its lists."""
    rows = [
        "| key | type | range | default | unit | what it does |",
        "|---|---|---|---|---|---|",
        *(_row(name, field) for name, field in leaf_fields(model)),
    ]
    parts = [f"{inspect.getdoc(model)}\n", "\n".join(rows) + "\n", _rules(model)]
    for name, field in model.model_fields.items():
        for item in typing.get_args(field.annotation):
            if is_model(item):
                parts.append(f"### Each of `{name}`\n\n{_section(item)}")
    return "\n".join(part for part in parts if part)


def _row(name: str, field: FieldInfo) -> str:
    cells = [
        f"`{name}`",
        type_text(field.annotation),
        ", ".join(bounds(field)),
        "required" if field.is_required() else f"`{json.dumps(field.default)}`",
        unit(field),
        field.description or "",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rules(model: type[BaseModel]) -> str:
    """Return what must hold between keys: what the validators are documented with."""
    validators = model.__pydantic_decorators__.model_validators
    texts = [inspect.getdoc(validator.func) or "" for validator in validators.values()]
    return "".join(f"- {' '.join(text.split())}\n" for text in texts)
