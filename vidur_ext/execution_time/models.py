"""The models that can be served: files in ``models/``, and those that users write.

Dimensions are those of the models' published ``config.json``.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from ppo_scheduler.config.section import Section, key
from ppo_scheduler.errors import UserError
from vidur_ext.config.loading import read_section

_FOLDER = Path(__file__).parent / "models"
_MOST = 1_000_000


class Model(Section):
    """The dimensions of a decoder-only transformer, as a model file says."""

    num_layers: int = key(..., "layers", ge=1, le=_MOST)
    num_q_heads: int = key(..., "query heads", ge=1, le=_MOST)
    num_kv_heads: int = key(..., "heads of keys and values", ge=1, le=_MOST)
    head_dim: int | None = key(
        None, "width of a head; null: embedding_dim / num_q_heads", ge=1, le=_MOST
    )
    embedding_dim: int = key(..., "width of the residual stream", ge=1, le=_MOST)
    mlp_hidden_dim: int = key(..., "width of the MLP, or of one expert", ge=1, le=_MOST)
    vocab_size: int = key(..., "tokens that there are", ge=1, le=100_000_000)
    gated_mlp: bool = key(True, "the MLP has a gate: three matrices instead of two")
    post_attention_norm: bool = key(True, "a second norm follows attention")
    tensor_parallel: bool = key(True, "layers can be split over devices")
    weights: Literal["bf16", "fp8"] = key("bf16", "type of the layers' weights")
    num_experts: int | None = key(None, "experts of a layer; null: one MLP", ge=2, le=_MOST)
    experts_per_token: int = key(1, "experts that a token goes through", ge=1, le=_MOST)

    @model_validator(mode="after")
    def _heads_fit(self) -> Model:
        """`num_kv_heads` divides `num_q_heads`, and `num_q_heads` divides `embedding_dim`."""
        if self.num_q_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} must divide num_q_heads={self.num_q_heads}"
            )
        if self.head_dim is None and self.embedding_dim % self.num_q_heads:
            raise ValueError(
                f"num_q_heads={self.num_q_heads} must divide embedding_dim={self.embedding_dim}, "
                "or head_dim be given"
            )
        if self.experts_per_token > (self.num_experts or 1):
            raise ValueError(
                f"experts_per_token={self.experts_per_token} is more than there are: give "
                "num_experts, or lower it"
            )
        return self

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.embedding_dim // self.num_q_heads

    def layer_parameters(self, tensor_parallel: int) -> int:
        """Return the weights of a layer's matrices on one device."""
        q_heads = self.num_q_heads // tensor_parallel
        kv_heads = -(-self.num_kv_heads // tensor_parallel)
        attention = self.embedding_dim * self.head_width * (2 * q_heads + 2 * kv_heads)
        matrices = 3 if self.gated_mlp else 2
        one = matrices * self.embedding_dim * self.mlp_hidden_dim // tensor_parallel
        return attention + (self.num_experts or 1) * one


def model_names() -> list[str]:
    """Return the names of the models that need no file of the user's."""
    return sorted(str(path.relative_to(_FOLDER))[:-5] for path in _FOLDER.rglob("*.json"))


@lru_cache(maxsize=64)
def model_named(name: str) -> Model:
    """Return a model by its name, or by the path of its file.

    Raises:
        UserError: it is unknown, or its file cannot be read or is none.
    """
    path = Path(name) if name.endswith(".json") else _FOLDER / f"{name}.json"
    if not path.is_file() and not name.endswith(".json"):
        raise UserError(
            f"there is no model {name!r}; choose one of {', '.join(model_names())}, or name a "
            "model file (.json)"
        )
    return read_section(path, Model)
