"""JSON files that say what they are: {"schema": "netlathe.KIND/VERSION", ...}, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from archspace.errors import FormatError

_MOST_BYTES = 1 << 24
"""No file of netlathe's comes near; a larger one is not worth the memory that reading it would take."""


def write_json(path: str | Path, kind: str, version: int, content: dict[str, Any]) -> None:
    """Writes beside the target first, then renames: a reader never sees half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"schema": f"netlathe.{kind}/{version}", **content}, indent=1) + "\n")
    os.replace(part, path)


def read_json(path: str | Path, kind: str, version: int) -> dict[str, Any]:
    """The content of such a file. Raises FormatError when it is missing, damaged, of another kind, or newer."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES >> 20} MB")
        content = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
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


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number in JSON")
