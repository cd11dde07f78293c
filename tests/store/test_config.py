"""The identity of a run: equal configurations hash equally, and differences are named."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.store.config import config_differences, config_hash, plain_json

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
CONFIGS = st.dictionaries(
    st.text("abc", min_size=1, max_size=2),
    st.recursive(
        LEAVES | st.text(max_size=3),
        lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def test_the_hash_is_that_of_the_canonical_text():
    text = b'{"a":[1,0.5],"b":{"x":null,"y":"\\u00e9"}}'
    config = {"b": {"y": "é", "x": None}, "a": (1, 0.5)}
    assert config_hash(config) == hashlib.sha256(text).hexdigest()


@settings(deadline=None)
@given(CONFIGS, CONFIGS)
def test_hash_and_differences_agree(one, two):
    assert config_differences(one, one) == []
    assert config_hash(one) == config_hash(dict(reversed(one.items())))
    assert (config_hash(one) == config_hash(two)) == (config_differences(one, two) == [])
    assert len(config_differences(one, two)) == len(config_differences(two, one))


def test_differences_are_named_field_by_field():
    old = {
        "seed": 0,
        "model": {"widths": [64, 100], "scale": 8.0},
        "preset": "digits",
        "gone": True,
    }
    new = {"seed": 1, "model": {"widths": (64, 200), "scale": 8.0}, "preset": "mnist", "new": None}
    assert config_differences({"config": old}, {"config": new}) == [
        "config.seed: 0 -> 1",
        "config.model.widths: [64, 100] -> [64, 200]",
        'config.preset: "digits" -> "mnist"',
        "config.gone: true -> (absent)",
        "config.new: (absent) -> null",
    ]


def test_a_tuple_is_a_list_but_kinds_of_numbers_differ():
    assert config_differences({"a": (1, 2)}, {"a": [1, 2]}) == []
    assert config_differences({"a": 1}, {"a": 1.0}) == ["a: 1 -> 1.0"]
    assert config_differences({"a": 1}, {"a": True}) == ["a: 1 -> true"]
    assert config_hash({"a": 1}) != config_hash({"a": 1.0})


def test_what_is_not_json_is_refused():
    assert plain_json({1: (2, 3)}) == {"1": [2, 3]}
    for value in (float("nan"), float("inf"), object(), {1, 2}):
        with pytest.raises(ValueError, match=r"expected plain JSON values, got"):
            config_hash({"a": value})
