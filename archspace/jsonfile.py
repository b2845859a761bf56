"""JSON files that say what they are: {"schema": "netlathe.KIND/VERSION", ...}, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from archspace.errors import FormatError


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({error})") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    found_kind, _, found_version = str(schema).partition("/")
    if found_kind != f"netlathe.{kind}":
        raise FormatError(f"{path}: expected a netlathe {kind}, found {schema or 'something else'}")
    if not found_version.isdigit() or int(found_version) > version:
        raise FormatError(f"{path}: {schema} is newer than this netlathe reads (version {version}); upgrade netlathe")
    return dict(content)
