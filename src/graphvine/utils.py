"""TaskVine's module of this name: small helpers of scripts."""

from __future__ import annotations

from typing import Any

from graphvine import cvine

# Under TYPE_CHECKING, it is an alias.
from graphvine import load_variable_from_library as load_variable_from_library  # type: ignore[attr-defined]


def get_c_constant(constant: str) -> Any:
    """``get_c_constant("result_success")`` is ``cvine.VINE_RESULT_SUCCESS``. Raises AttributeError."""
    return getattr(cvine, f"VINE_{constant.upper()}")
