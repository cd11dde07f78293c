"""A configuration as the identity of a run: its hash, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def plain_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``fields`` as JSON gives them back: lists for tuples, text for keys.

    Raises:
        ValueError: Not plain JSON values; NaN and infinities are none.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(fields), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"expected plain JSON values, got {error}.") from None
    return plain


def config_hash(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration, written as JSON with sorted keys and no spaces.

    Raises:
        ValueError: Not plain JSON values.
    """
    canonical = json.dumps(plain_json(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def config_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Compare two nested mappings field by field.

    Args:
        old: JSON values; lists are compared whole.
        new: Likewise.

    Returns:
        One entry per field that differs, ``"config.seed: 0 -> 1"``, in the order of ``old``, then
        the fields that only ``new`` has; ``(absent)`` stands for a missing one.
    """
    before, after = _flatten(old), _flatten(new)
    return [
        f"{name}: {before.get(name, '(absent)')} -> {after.get(name, '(absent)')}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    ]


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, default=str)
    return flat
