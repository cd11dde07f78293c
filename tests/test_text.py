import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokscope._text import visible


@given(st.text(st.characters(), max_size=300), st.integers(3, 200))
def test_nothing_acts_on_a_terminal_or_hides(text, most):
    shown = visible(text, most)
    assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in shown)
    shown.encode()  # no half of a surrogate pair
    assert len(shown) <= 10 * most  # an escape has up to ten characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("transformer.h.0.attn", "transformer.h.0.attn"),
        ("a\x1b[31m\n\u202eb\ud800", r"a\x1b[31m\n\u202eb\ud800"),
        ("层.ω", "层.ω"),
        (7, "7"),
    ],
)
def test_only_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown


def test_the_middle_of_a_long_text_gives_way():
    assert visible("a" * 500 + "z" * 500, 10) == "aaaaaa…zzz"
    assert visible("a" * 160) == "a" * 160
