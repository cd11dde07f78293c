"""Text that others wrote, such as tensor names, made safe to show."""

from __future__ import annotations

import unicodedata

# Control, format (such as those that reverse the direction of writing), surrogate, private and
# unassigned characters, and separators of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: object, most: int = 160) -> str:
    r"""Return text on one line without anything that acts on a terminal or hides from the eye.

    Such characters are written as Python escapes (``\x1b``, ``\u202e``), and the middle of a very
    long text gives way to an ellipsis. Markup is not touched: that is for whoever writes markup.

    Args:
        text: Anything; what is no string is written as one.
        most: Characters that are kept, at least 3.
    """
    whole = str(text)
    if len(whole) > most:
        head = (most - 1) * 2 // 3
        whole = f"{whole[:head]}…{whole[len(whole) - (most - 1 - head) :]}"
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _UNSEEN
        else character
        for character in whole
    )
