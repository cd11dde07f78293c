"""Seeds of independent streams, derived from one root."""

from __future__ import annotations

import hashlib
import json


def derive_seed(root: int, *names: str | int) -> int:
    """Return the seed of one stream of randomness: a pure function of the root and its name.

    Streams of different names are unrelated, so adding one never shifts another. The seed is the
    first 63 bits of the SHA-256 of the JSON array ``[root, *names]``, the same on every machine
    and in every version.

    Args:
        root: The seed of the run.
        *names: What the stream is for: ``"init"``, or ``"noise", 1200``. The string ``"1"`` and the
            integer 1 are different names.

    Returns:
        An integer in ``[0, 2**63)``, fit for `torch.Generator.manual_seed` and numpy.
    """
    name = json.dumps([root, *names], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
