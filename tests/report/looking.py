"""What a page and a chart show, taken apart for tests."""

from __future__ import annotations

import csv
import html.parser
import io
import math


class Elements(html.parser.HTMLParser):
    """Collects tags, and the text that people see."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.seen, self.scripts = [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.seen).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data):
        (self.scripts if self.inside else self.seen).append(data)


def tables_of(chart):
    """Return the data sets of a chart as lists of rows, numbers parsed as the chart does."""
    spec = chart.to_dict()
    found = []
    for layer in spec["layer"]:
        data = layer["data"]
        numbers = data["format"].get("parse", {})
        text = data["values"] if "values" in data else spec["datasets"][data["name"]]
        rows = csv.DictReader(io.StringIO(text))
        found.append(
            [
                {k: (float(v) if v else math.nan) if k in numbers else v for k, v in row.items()}
                for row in rows
            ]
        )
    return found
