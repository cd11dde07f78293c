"""The faults a user can meet, each with the exit code that the command line documents.

A message says what was wrong, where, and what to do next. Anything that is not one of these is a
defect of grokscope and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GrokscopeError(Exception):
    """Base of all faults that are the user's to mend; never raised itself."""

    exit_code = 4


class UsageError(GrokscopeError):
    """A name or a value on the command line that cannot be meant."""

    exit_code = 2


class InputError(GrokscopeError):
    """A file or folder that is damaged, foreign, or at odds with what was asked."""

    exit_code = 3


class RunFailed(GrokscopeError):
    """Training itself broke: the loss is no longer finite."""

    exit_code = 4


class MissingResource(GrokscopeError):
    """Data, disk, device or lock that this machine does not give."""

    exit_code = 5


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for a name that is not known, with the nearest one that is.

    Args:
        kind: What was named, for the message: ``"preset"``.
        name: What the user wrote.
        known: The names that exist.

    Returns:
        An error to raise; its message ends with the whole list.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UsageError(f"Unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
