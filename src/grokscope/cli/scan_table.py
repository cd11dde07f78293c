"""How a scan is told on a terminal: findings first, then the layers, then what was left out."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from grokscope._text import visible
from grokscope.scan import words

_TABLE_WIDTH = 72  # columns; below, a table would break words
_DISPENSABLE = ("kind", "of noise")  # go in this order, to give the names room
_LONG = 48  # columns up to which a name is given that room
_MOST_LAYERS = 24  # shown without a finding and without being asked for
_EXTREMES = 3  # smallest and largest exponents that are shown in any case
_MOST_STEPS = 16
_MOST_REASONS = 12
_MOST_COLUMNS = 5  # layers that the history names one by one

Layer = Mapping[str, Any]


def print_scan(
    document: Mapping[str, Any],
    console: Console,
    *,
    show_all: bool = False,
    page_command: str | None = None,
) -> None:
    """Print what a scan has found.

    Args:
        document: What ``grokscope scan --json`` prints. Names in it may be anything.
        console: Where to; its width decides how much stands side by side.
        show_all: Whether every layer, step and reason is shown, not only those that matter most.
        page_command: The command that makes the page, if that is to be suggested.
    """
    newest = words.newest_step(document)
    layers = words.at_step(document["layers"], newest)
    findings = words.at_step(document["findings"], newest)
    measured = [layer for layer in layers if layer["status"] != "skipped"]
    _print_findings(document, layers, findings, newest, console)
    if len({layer["step"] for layer in document["layers"]}) > 1:
        _print_history(document, console, show_all)
    flagged = {finding["layer"] for finding in findings}
    shown = measured if show_all else _chosen(measured, flagged)
    _print_layers(shown, console)
    _print_left_out(measured, shown, console)
    most = None if show_all else _MOST_REASONS
    skipped = [layer for layer in layers if layer["status"] == "skipped"]
    _print_groups("Not computed", "layer", words.not_computed(measured), console, most)
    _print_groups("Skipped", "tensor", words.grouped(skipped, "reason"), console, most)
    _print_groups("Remarks", "layer", words.grouped(measured, "note"), console, most)
    notes = [visible(note, 600) for note in document.get("notes") or ()]
    if notes:
        console.print()
        console.print(Text("Notes", "bold"))
        for note in notes:
            _line(note, console)
    _print_end(document, measured, newest, console)
    if page_command and measured:
        what = "the spectra of layers with a finding" if findings else "alpha of every layer"
        _line(f"To see {what}:", console, "")
        console.print(Text(f"  {visible(page_command, 10_000)}"), soft_wrap=True)


def _line(text: str, console: Console, indent: str = "  ") -> None:
    """Print a paragraph whose further lines stand further in; names in it are not touched."""
    filled = textwrap.fill(
        text,
        max(30, console.width),
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )
    console.print(Text(filled), soft_wrap=True)


def _print_findings(
    document: Mapping[str, Any],
    layers: Sequence[Layer],
    findings: Sequence[Layer],
    newest: int | None,
    console: Console,
) -> None:
    at = "" if newest is None else f", step {newest:,}"
    base = f" minus {visible(document['base'])}" if document.get("base") else ""
    _line(f"{visible(document['path'])}{base}{at}: {words.counts(layers)}", console, "")
    told = [words.headline(findings), words.proportion(findings)]
    console.print(Text("; ".join(filter(None, told)), "bold"))
    for kind, group in words.by(findings, "finding").items():
        console.print()
        console.print(Text(words.label(kind), "bold yellow"))
        for finding in group:
            _line(f"{words.name(finding['layer'])}: {visible(finding['text'], 600)}", console)


def _chosen(measured: Sequence[Layer], flagged: set[str]) -> list[Layer]:
    """Return the layers that are shown: all of a few, else those flagged and the extremes."""
    if len(measured) <= _MOST_LAYERS:
        return list(measured)
    fitted = [layer for layer in measured if words.value_of(layer, "alpha") is not None]
    fitted.sort(key=lambda layer: float(layer["alpha"]))
    kept = {layer["name"] for layer in (*fitted[:_EXTREMES], *fitted[-_EXTREMES:])} | flagged
    return [layer for layer in measured if layer["name"] in kept]


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i > 0, justify="right" if i else "left")
    return table


def _print_layers(layers: Sequence[Layer], console: Console) -> None:
    if not layers:
        return
    console.print()
    rows = []
    for layer in layers:
        distance = words.value_of(layer, "D")
        cells = {
            "layer": words.name(layer["name"], 96),
            "kind": visible(layer["kind"], 20),
            "shape": words.size(layer),
            "alpha": words.alpha(layer),
            "of noise": words.noise(layer),
            "D": "" if distance is None else f"{distance:.3f}",
            "tail": words.tail(layer),
            "traps": words.traps(layer),
        }
        rows.append(cells)
    columns = _columns(rows, console.width)
    if console.width < _TABLE_WIDTH:
        for row in rows:
            known = [f"{name} {row[name]}" for name in columns[1:] if row[name]]
            _line(f"{row['layer']}: {', '.join(known)}", console, "")
        return
    table = _table(columns)
    for row in rows:
        table.add_row(*(Text(row[name] or "–") for name in columns))
    console.print(table)


def _columns(rows: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Return the columns that hold anything, less those for which names would have to fold."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]

    def needed() -> int:
        widths = [max(cell_len(text) for text in (c, *(r[c] for r in rows))) for c in columns]
        return min(widths[0], _LONG) + sum(widths[1:]) + 2 * len(widths[1:])

    for column in _DISPENSABLE:
        if column in columns and needed() > width:
            columns.remove(column)
    return columns


def _print_left_out(measured: Sequence[Layer], shown: Sequence[Layer], console: Console) -> None:
    names = {layer["name"] for layer in shown}
    left = [layer for layer in measured if layer["name"] not in names]
    if left:
        alphas = [a for layer in left if (a := words.value_of(layer, "alpha")) is not None]
        ends = (
            f", alpha {words.decimal(min(alphas))} to {words.decimal(max(alphas))}"
            if alphas
            else ""
        )
        more = words.count(len(left), "more layer")
        _line(f"and {more} without a finding{ends} (--all shows them)", console, "")


def _print_groups(
    title: str,
    noun: str,
    groups: Mapping[str, Sequence[str]],
    console: Console,
    most: int | None,
) -> None:
    if not groups:
        return
    console.print()
    console.print(Text(title, "bold"))
    for reason, names in list(groups.items())[:most]:
        _line(f"{words.count(len(names), noun)}: {reason} ({words.some(names)})", console)
    if most is not None and len(groups) > most:
        _line(f"and {len(groups) - most} more reasons (--all shows them)", console)


def _print_history(document: Mapping[str, Any], console: Console, show_all: bool) -> None:
    """Print alpha, traps and findings by step: of each of a few layers, else over all of them."""
    summaries = sorted(document["summary"], key=lambda entry: int(entry["step"]))
    measured = [layer for layer in document["layers"] if layer["status"] != "skipped"]
    names = list(dict.fromkeys(layer["name"] for layer in measured))
    by_place = {(layer["step"], layer["name"]): layer for layer in measured}
    found = Counter(finding["step"] for finding in document["findings"])
    width = 20 + sum(max(len(words.name(name, 40)), 10) + 2 for name in names)
    each = len(names) <= _MOST_COLUMNS and width <= console.width
    shown = summaries
    if len(summaries) > _MOST_STEPS and not show_all:
        last = len(summaries) - 1
        picked = {round(i * last / (_MOST_STEPS - 1)) for i in range(_MOST_STEPS)}
        shown = [summaries[i] for i in sorted(picked)]
    console.print()
    console.print(Text("Alpha by step" + (" (traps)" if each else ""), "bold"))
    titles = [words.name(name, 40) for name in names] if each else ["mean", "median", "with traps"]
    table = _table(["step", *titles, "findings"])
    for entry in shown:
        step = entry["step"]
        if each:
            cells = [_alpha_and_traps(by_place.get((step, name), {})) for name in names]
        else:
            means = [words.value_of(entry, key) for key in ("alpha_mean", "alpha_median")]
            cells = [*(words.spread(mean, None) for mean in means), f"{entry['with_traps']:,}"]
        table.add_row(f"{step:,}", *(Text(cell or "–") for cell in cells), f"{found[step]:,}")
    console.print(table)
    if len(shown) < len(summaries):
        left = words.count(len(summaries) - len(shown), "more step")
        _line(f"and {left} between them (--all shows them)", console, "")


def _alpha_and_traps(layer: Layer) -> str:
    alpha, count = words.spread(words.value_of(layer, "alpha"), None), words.traps(layer)
    return f"{alpha or 'none'} ({count})" if count else alpha


def _print_end(
    document: Mapping[str, Any],
    measured: Sequence[Layer],
    newest: int | None,
    console: Console,
) -> None:
    alphas = [a for layer in measured if (a := words.value_of(layer, "alpha")) is not None]
    console.print()
    if alphas:
        entry = next(each for each in document["summary"] if each["step"] == newest)
        known = ((name, words.value_of(entry, f"alpha_{name}")) for name in ("mean", "median"))
        means = [f"{name} {words.decimal(value)}" for name, value in known if value is not None]
        if means:
            _line(f"Alpha of the model: {', '.join(means)}.", console, "")
        _line(words.caution(measured), console, "")
