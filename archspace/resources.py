"""Paths of the files that ship beside the code: data/ and device_scripts/, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from netlathe.archspace.errors import FormatError

_PACKAGE = Path(__file__).parent.parent
"""Both folders stand in the package, in a checkout by links."""


def data_path(name: str) -> Path:
    """A file of data/. Raises FormatError when there is none of that name, listing what there is."""
    return _existing("data", name)


def data_files(folder: str, suffix: str) -> list[Path]:
    """The files with that ending in a folder of data/, by name; none where there is no such folder."""
    return sorted((_PACKAGE / "data" / folder).glob(f"*{suffix}"), key=lambda path: path.stem)


def device_script_path(name: str) -> Path:
    """A file of device_scripts/. Raises FormatError when there is none of that name, listing what there is."""
    return _existing("device_scripts", name)


def _existing(folder: str, name: str) -> Path:
    path = _PACKAGE / folder / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in (_PACKAGE / folder).glob("*") if p.is_file())) or "nothing"
        raise FormatError(f"{folder}/ has no {name!r}; it has {there}")
    return path
