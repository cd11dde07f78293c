"""From a preset and what the user changes to a validated configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from grokscope.errors import UsageError, unknown


def resolve(config: BaseModel, changes: Sequence[str], **named: object) -> BaseModel:
    """Return ``config`` with changes applied and everything validated anew.

    Args:
        config: A preset's configuration.
        changes: ``key=value`` each. A value is read as JSON where it is JSON, as a list where it
            holds commas, and as text otherwise.
        named: Further values by key; None leaves a key as it is.

    Raises:
        UsageError: For an unknown key or a value that does not fit; the message names the nearest
            that would.
    """
    values: dict[str, Any] = {k: v for k, v in named.items() if v is not None}
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator:
            raise UsageError(f"--set {change}: expected key=value, as in --set lr=0.001.")
        values[key.strip()] = _parse(text.strip())
    for key in values:
        if key not in type(config).model_fields:
            raise unknown("setting", key, type(config).model_fields)
    try:
        return type(config).model_validate({**config.model_dump(), **values})
    except ValidationError as error:
        raise UsageError(_explain(error, config)) from None


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [_parse(part.strip()) for part in text.split(",")] if "," in text else text


def _explain(error: ValidationError, config: BaseModel) -> str:
    """Say in one line each which values do not fit, and what would."""
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"]) or "settings"
        given: object = fault["input"]
        choices = _choices(config, str(fault["loc"][0])) if fault["loc"] else []
        if choices:
            lines.append(str(unknown(f"value of {key},", str(given), choices)))
        elif isinstance(given, Mapping):
            lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')}, got {given!r}.")
    return "\n".join(lines)


def _choices(config: BaseModel, key: str) -> list[str]:
    field = type(config).model_fields.get(key)
    return [] if field is None else [c for c in get_args(field.annotation) if isinstance(c, str)]
