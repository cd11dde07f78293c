import io
import re
import shlex

import pytest
from rich.console import Console

from grokscope.cli.scan_table import print_scan
from synthetic_scan import (
    HOSTILE,
    LONG,
    document,
    heavy,
    large,
    measured,
    run_of_checkpoints,
    small,
    unmeasured,
)


def printed(made, width=80, **options):
    out = io.StringIO()
    terminal = options.pop("terminal", False)
    colours = "truecolor" if terminal else None
    console = Console(
        file=out, width=width, highlight=False, force_terminal=terminal, color_system=colours
    )
    print_scan(made, console, **options)
    return out.getvalue()


def lines_of(text):
    """Undo the wrapping: one line for each paragraph."""
    return re.sub(r"\n {4,}", " ", text).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_nothing_is_wider_than_the_terminal(width):
    command = "grokscope scan model.safetensors --layers 'fc1|fc2|embed' --seed 7 --out scan.html"
    text = printed(small()[0], width, page_command=command)
    command = f"  {command}"  # is there to be copied
    assert command in text.splitlines()
    assert all(len(line) <= width for line in text.splitlines() if line != command)


def test_findings_come_first_with_the_layer_and_the_numbers():
    made = small()[0]
    lines = lines_of(printed(made))
    assert lines[0] == "model.safetensors: 5 matrices analysed, 2 failed, 4 skipped"
    told = printed(made, 120).splitlines()
    assert told[1] == (
        "5 findings in 5 layers; of those by alpha, 1 of 2 lie within what noise of equal shape "
        "gives"
    )
    words = ["not finite", "alpha below 2", "traps", "under-trained", "no power law"]
    assert [line for line in lines if line in words] == words
    for finding in made["findings"]:
        assert f"  {finding['layer']}: {finding['text']}" in lines
    assert lines.index("no power law") < next(
        i for i, line in enumerate(lines) if line.startswith("layer ")
    )


def test_the_table_holds_the_numbers_of_every_layer():
    made = small()[0]
    text = printed(made)
    rows = {line.split()[0]: line for line in text.split("layer  ")[1].splitlines()[1:8]}
    for layer in made["layers"][:5]:
        row = rows[layer["name"]]
        assert f"{layer['alpha']:.2f} ± {layer['alpha_se']:.2f}" in row
        assert f"{layer['D']:.3f}" in row
        assert f"{layer['num_pl_spikes']} of {layer['size']}" in row
        assert row.split()[-1] == f"{layer['traps']:g}"
    assert rows["dead"].split() == ["dead", "64", "×", "64", *"––––"]
    wide = printed(made, 120)
    assert "of noise" in wide
    assert "embedding" in wide


def test_what_was_skipped_is_counted_by_reason():
    lines = printed(small()[0]).splitlines()
    assert "  3 tensors: 1-D (a bias, a norm) (fc1.bias, fc2.bias, norm.weight)" in lines
    assert "  1 tensor: a side of 4 is below 10 (gate)" in lines
    assert "  Two names share one tensor: head, embed." in lines
    biases = [unmeasured(f"fc{i}.bias", (9,), "skipped", "1-D") for i in range(12)]
    assert "  12 tensors: 1-D (fc0.bias, fc1.bias and 10 more)" in printed(document(biases))


def test_what_was_not_computed_is_told_by_reason():
    text = printed(small()[0])
    group = text.split("Not computed\n")[1].split("\n\n")[0].splitlines()
    assert group == [
        "  1 layer: alpha and traps, because the matrix is zero (dead)",
        "  1 layer: alpha and traps, because weights are not finite (broken)",
    ]
    pooled = measured("conv[slices]", heavy(100, 250, 1))[0]
    pooled |= {"traps": None, "missing": {"traps": "several matrices are pooled"}}
    text = printed(document([pooled, measured("fc", heavy(100, 250, 1))[0]]))
    assert "  1 layer: traps, because several matrices are pooled (conv[slices])" in text
    row = next(line for line in text.splitlines() if line.startswith("conv[slices]  "))
    assert row.split()[-1] == "–"


def test_names_have_room_before_kind_and_noise():
    names = [f"gru{i}.weight_hh_l{i}_reverse[update]" for i in range(3)]
    layers = [measured(name, heavy(100, 250, 1), kind="recurrent layer")[0] for name in names]
    for width, kind, of_noise in ((90, False, False), (110, False, True), (140, True, True)):
        table = printed(document(layers), width).split("\nlayer ")[1]
        head = table.splitlines()[0]
        assert ("kind" in head, "of noise" in head) == (kind, of_noise)
        assert all(f"\n{name} " in table for name in names)


def test_a_layer_without_a_name_is_called_so():
    text = printed(document([measured("", heavy(100, 250, 1))[0]]))
    assert "\n  (no name): alpha" in text
    assert "\n(no name)  " in text


def test_where_noise_was_not_measured_no_proportion_is_told():
    layer = measured("fc", heavy(100, 250, 1))[0] | {"alpha_null_q05": None}
    assert printed(document([layer])).splitlines()[1] == "1 finding in 1 layer"


def test_what_should_have_been_measured_and_was_not_is_told():
    lines = printed(document([unmeasured("big", (60, 60), "lost", "it took 601 s")])).splitlines()
    assert lines[0] == "model.safetensors: 0 matrices analysed, 1 not measured"
    assert "  big: it took 601 s" in lines


def test_of_many_layers_those_that_matter_are_shown():
    made, _ = large(blocks=12)
    layers = [layer for layer in made["layers"] if layer["status"] == "ok"]
    found = {finding["layer"] for finding in made["findings"]}
    by_alpha = sorted(layers, key=lambda layer: layer["alpha"])
    kept = found | {layer["name"] for layer in by_alpha[:3] + by_alpha[-3:]}
    left = [layer["alpha"] for layer in layers if layer["name"] not in kept]
    text = printed(made, 100)
    table = text.split("\nlayer ")[1].split("\nand ")[0]
    assert table.count("±") == len(kept)
    ends = f"alpha {min(left):.2f} to {max(left):.2f}"
    assert f"and {len(left)} more layers without a finding, {ends} (--all shows them)" in lines_of(
        text
    )
    whole = printed(made, 100, show_all=True)
    assert whole.split("\nlayer ")[1].count("±") == len(layers)
    assert "--all" not in whole


def test_names_do_nothing_to_a_terminal():
    made, _ = large(blocks=5)
    made["path"] = "a b'; rm -rf ~; \x1b]0;title\x07"
    for terminal in (False, True):
        command = f"grokscope scan {shlex.quote(made['path'])} --out scan.html"
        text = printed(made, terminal=terminal, page_command=command)
        shown = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert ("\x1b[" in text) == terminal
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
        assert r"\x1b[31m\u202e[bold]" in re.sub(r"\n *", "", shown)
        assert LONG not in re.sub(r"\s", "", shown)


def test_markup_in_a_text_is_only_text():
    layer = measured("[red]fc[/red]", heavy(100, 250, 1), kind="[blink]")[0]
    made = document([layer | {"note": "[bold]note[/]"}], notes=["[/nothing]"])
    made["findings"][0]["text"] = "[link=x]y[/link]"
    text = printed(made, 120)
    for part in ("[red]fc[/red]: [link=x]y[/link]", "[blink]", "[bold]note[/]", "[/nothing]"):
        assert part in text
    assert HOSTILE not in text


def test_no_findings_are_said_plainly():
    made = document([measured("fc", heavy(100, 250, 1, 3.0))[0]])
    assert "To see" not in printed(made)
    lines = printed(made, page_command="grokscope scan x --out x.html").splitlines()
    assert lines[:2] == ["model.safetensors: 1 matrix analysed", "No findings"]
    assert "To see alpha of every layer:" in lines


def test_a_document_without_a_matrix_is_told():
    made = document([unmeasured("bias", (3,), "skipped", "1-D (a bias, a norm)")])
    lines = printed(made, page_command="grokscope scan x --out x.html").splitlines()
    assert lines[:2] == ["model.safetensors: 0 matrices analysed, 1 skipped", "No findings"]
    assert not any("To see" in line for line in lines)
    assert not any("heuristics" in line for line in lines)


def test_several_steps_are_a_history_and_the_newest_is_told():
    made, _ = run_of_checkpoints()
    text = printed(made)
    assert lines_of(text)[0].startswith("runs/mnist, step 100,000: 2 matrices analysed")
    history = text.split("Alpha by step (traps)\n")[1].splitlines()
    assert history[0].split() == ["step", "fc1", "fc2", "findings"]
    for line, step in zip(history[1:4], ("0", "1,000", "100,000"), strict=True):
        layers = [layer for layer in made["layers"] if f"{layer['step']:,}" == step]
        cells = [f"{x['alpha']:.2f} ({x['traps']:g})" for x in layers if x["alpha"]]
        found = sum(f"{finding['step']:,}" == step for finding in made["findings"])
        assert re.split(r" {2,}", line) == [step, *cells, str(found)]
    told = [f["text"] for f in made["findings"] if f["step"] == 100_000]
    older = [f["text"] for f in made["findings"] if f["step"] == 1000]
    assert older
    assert all(any(each in line for line in lines_of(text)) for each in told)
    assert not any(each in line for each in older for line in lines_of(text))


def test_long_histories_of_many_layers_are_thinned():
    layers = []
    record, _ = measured("fc", heavy(100, 250, 1))
    for step in range(0, 5000, 100):
        layers += [record | {"name": f"fc{i}", "step": step} for i in range(7)]
    text = printed(document(layers))
    history = text.split("Alpha by step\n")[1].split("\nand ")[0].splitlines()
    assert history[0].split() == ["step", "mean", "median", "with", "traps", "findings"]
    assert history[1].startswith("0 ")
    assert history[-1].startswith("4,900 ")
    assert "and 34 more steps between them (--all shows them)" in text
    assert len(history) == 17
    whole = printed(document(layers), show_all=True)
    assert len(whole.split("Alpha by step\n")[1].split("\n\n")[0].splitlines()) == 51


def test_of_many_reasons_the_most_common_are_shown():
    layers = [
        unmeasured(f"w{i}.{j}", (3,), "skipped", f"the same numbers as 'w{i}'")
        for i in range(20)
        for j in range(20 - i)
    ]
    text = printed(document(layers))
    assert "  20 tensors: the same numbers as 'w0' (w0.0, w0.1 and 18 more)" in text
    assert "and 8 more reasons (--all shows them)" in text
    assert "'w12'" not in text
    assert "  1 tensor: the same numbers as 'w19' (w19.0)" in printed(
        document(layers), show_all=True
    )
