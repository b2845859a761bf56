"""search's branch of the error tree.

SearchError
├── DataError       images that cannot be read, split or shaped
├── TargetError     a latency target that no network of the space meets, or a table with holes
└── TrainingError   a loss that is no longer a number, or weights that do not fit
"""

from __future__ import annotations

from collections.abc import Mapping

from netlathe.archspace.errors import NetlatheError


class SearchError(NetlatheError):
    """Base of search's failures."""


class DataError(SearchError):
    """Images that cannot be read, split or shaped."""

    is_paragraph = True


class TargetError(SearchError):
    """A latency target that no network of the space meets, or a latency table with holes."""


class TrainingError(SearchError):
    """A loss that is no longer a number, or weights that do not fit."""


def refuse(config: object, wrong: Mapping[str, bool]) -> None:
    """Raises TrainingError that names the first of a configuration's fields that is wrong."""
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise TrainingError(f"{name} = {getattr(config, name)} is out of range in {config}; choose another")
