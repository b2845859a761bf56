"""JSON files that say what they are: {"schema": "netlathe.KIND/VERSION", ...}, written whole or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from netlathe.archspace.errors import FormatError
from netlathe.archspace.files import digest, read_whole, write_whole

MOST_BYTES = 1 << 24
"""No file of netlathe's comes near; a larger one is not worth the memory that reading it would take."""


def write_json(path: str | Path, kind: str, version: int, content: dict[str, Any]) -> None:
    """Writes it whole or not at all: a reader never sees half a file. Raises OSError."""
    write_whole(path, json.dumps({"schema": f"netlathe.{kind}/{version}", **content}, indent=1) + "\n")


def read_json(path: str | Path, kind: str, version: int) -> dict[str, Any]:
    """The content of such a file. Raises FormatError when it is missing, damaged, of another kind, or newer."""
    path = Path(path)
    try:
        content = json.loads(read_whole(path, MOST_BYTES).decode("utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    found_kind, _, found_version = str(schema).partition("/")
    if found_kind != f"netlathe.{kind}":
        raise FormatError(f"{path}: expected a netlathe {kind}, found {schema or 'something else'!s:.60}")
    if not re.fullmatch("[0-9]{1,9}", found_version) or int(found_version) > version:
        raise FormatError(
            f"{path}: {schema:.60} is newer than this netlathe reads (version {version}); upgrade netlathe"
        )
    return dict(content)


def json_digest(content: Any) -> str:
    """Digest of something JSON-able, whatever the order of its keys."""
    return digest(json.dumps(content, sort_keys=True))


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number in JSON")
