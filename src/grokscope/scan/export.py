"""The layers of a scan as a table for other programs."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Mapping
from typing import Any

from grokscope.errors import MissingResource


def require_pyarrow() -> None:
    """Raise MissingResource unless pyarrow is installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingResource(
            "Parquet needs pyarrow: pip install 'grokscope[parquet]'. Or write .json."
        )


def layers_parquet(document: Mapping[str, Any]) -> bytes:
    """Return the layers of a scan as a Parquet file, a row each.

    Columns are the fields of a layer; those that are lists or objects hold JSON. The settings of
    the scan are in the metadata of the file, under ``grokscope``.

    Args:
        document: Of `scan`.

    Raises:
        MissingResource: pyarrow is not installed.
    """
    require_pyarrow()
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for layer in document["layers"] for name in layer))
    columns = {name: [_plain(layer.get(name)) for layer in document["layers"]] for name in names}
    about = {k: v for k, v in document.items() if k not in ("layers", "findings")}
    table = pyarrow.table(columns).replace_schema_metadata({"grokscope": json.dumps(about)})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
