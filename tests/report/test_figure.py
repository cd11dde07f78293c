import re

import pytest
from synthetic_run import MANIFEST, build_trace

from grokscope.errors import MissingResource, UsageError
from grokscope.report import write_figure


@pytest.mark.parametrize(
    ("name", "magic"),
    [("f.png", b"\x89PNG\r\n\x1a\n"), ("f.svg", b"<svg "), ("F.PDF", b"%PDF-")],
)
def test_a_figure_is_of_the_kind_of_its_ending(tmp_path, name, magic):
    path = tmp_path / name
    write_figure(build_trace(layers=("fc1",)), MANIFEST, path)
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_svg_names_run_rules_phases_and_verdict(tmp_path):
    path = tmp_path / "f.svg"
    write_figure(build_trace(layers=("fc1",)), MANIFEST, path)
    words = re.sub("<[^>]+>", "|", path.read_text(encoding="utf-8"))
    for word in ("my-own, preset none, seed 7", "anti-grokking since step 8,000", "observed",
                 "htsr", "neighbourhood", "test", "train", "pre-grokking", "10,000"):  # fmt: skip
        assert word in words, word
    assert "var(--" not in path.read_text(encoding="utf-8")


def test_a_run_of_one_observation_without_config_is_drawn(tmp_path):
    path = tmp_path / "f.png"
    trace = build_trace(steps=(0,), spectral=False, neighbourhood=False, test_data=False)
    write_figure(trace, {"experiment": "x", "preset": "y"}, path)
    assert path.stat().st_size > 5000


def test_other_endings_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"'f\.jpeg'.*\.png, \.svg or \.pdf"):
        write_figure(build_trace(steps=(0,)), MANIFEST, tmp_path / "f.jpeg")


def test_a_folder_that_is_missing_is_said(tmp_path):
    with pytest.raises(MissingResource, match=re.escape("f.svg")):
        write_figure(build_trace(steps=(0,)), MANIFEST, tmp_path / "nowhere" / "f.svg")
