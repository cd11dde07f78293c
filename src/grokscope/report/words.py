"""The sentences of a report: phases, rules, numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

PHASE_MEANINGS = {
    "fitting": "The training points are still being learnt.",
    "pre-grokking": "The training points are learnt by heart; other points are not.",
    "grokking": "Generalisation is rising, long after the training points were learnt.",
    "generalised": "Generalisation has come, and holds.",
    "anti-grokking": "Generalisation came and is being lost; the training points stay learnt.",
    "unstable": "The training points, once learnt, are being lost.",
    "not-determined": "The rule abstains: a reading that it needs is missing.",
}

RULE_MEANINGS = {
    "observed": "by test accuracy, the ground truth here",
    "htsr": "from weights alone: layer exponents and correlation traps",
    "neighbourhood": "from training points alone: whether nearby inputs keep their label",
}


def run_name(manifest: Mapping[str, Any]) -> str:
    """Return what a run is called; what a `Watch` recorded of a user's own loop has no preset."""
    experiment, preset = manifest["experiment"], manifest["preset"]
    if experiment == "watch":
        return "A training loop of your own"
    return f"{experiment}, preset {preset}" if preset else str(experiment)


def seed_of(manifest: Mapping[str, Any]) -> int | None:
    """Return the seed of the training, None if not known: a watch knows only that of its own."""
    config = manifest.get("config") or {}
    return None if manifest["experiment"] == "watch" else config.get("seed")


def number(value: float) -> str:
    """Return a number for reading: thousands separated, four significant digits otherwise."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if abs(value) < 1e4 or not math.isfinite(value) else f"{value:,.0f}"


def percent(share: float) -> str:
    """Return a share as a percentage that never rounds to all or nothing."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    digits = 0 if share in (0, 1) else 1
    return f"{min(100 * share, 99.9 if share < 1 else 100):.{digits}f} %"


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def steps(start: int, end: int) -> str:
    """Return a range of steps in words."""
    return f"at step {start:,}" if start == end else f"steps {start:,} to {end:,}"


def listing(parts: Sequence[str], most: int = 3) -> str:
    """Return some of ``parts``, joined, and how many are left."""
    shown = "; ".join(parts[:most])
    return shown if len(parts) <= most else f"{shown}; and {len(parts) - most} more"


def typeset(text: str) -> str:
    """Return plain text with real arrows and exponents, and percent signs that stay in place."""
    raised = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
    text = re.sub(r"\^(-?\d+)", lambda found: found[1].translate(raised), text)
    return text.replace(" -> ", " → ").replace(" %", "\u00a0%")
