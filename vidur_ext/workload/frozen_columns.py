"""Columns of frozen tables: checked, copied, read-only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppo_scheduler.errors import UserError


def freeze_columns(
    owner: object,
    names: Sequence[str],
    dtype: type[np.generic],
    length: int,
    like: str = "arrived_at",
) -> None:
    """Replace columns of a frozen dataclass by read-only copies.

    Args:
        names: the attributes that hold them.
        length: entries of each.
        like: the column that has as many, named in errors.

    Raises:
        UserError: a column has another shape, or a type that would have to be rounded.
    """
    for name in names:
        given = np.asarray(getattr(owner, name))
        if given.shape != (length,):
            found = f"{given.size} entries" if given.ndim == 1 else f"the shape {given.shape}"
            raise UserError(
                f"columns must have one length: {name} has {found}, {like} has {length}"
            )
        if not np.can_cast(given.dtype, dtype, "safe"):
            needed = "integers" if dtype is np.int64 else "numbers"
            raise UserError(
                f"{name} holds {given.dtype}; expected {np.dtype(dtype)}: it must hold {needed}"
            )
        column = given.astype(dtype, copy=True)
        column.setflags(write=False)
        object.__setattr__(owner, name, column)
