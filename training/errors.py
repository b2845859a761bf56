"""training's branch of the error tree.

NetlatheError
├── DataError       images that cannot be read, split or shaped
│   └── UnreadableError     the same, with all of their names
└── TrainingError   a loss that is no longer a number, weights that do not fit, settings out of range
    ├── LostRankError        another process of the run is gone
    └── ToldElsewhereError   another process of the run tells why it ended
"""

from __future__ import annotations

from collections.abc import Mapping

from netlathe.archspace.errors import NetlatheError


class DataError(NetlatheError):
    """Images that cannot be read, split or shaped."""

    is_paragraph = True


class UnreadableError(DataError):
    """Images that cannot be read, a line for each."""

    is_paragraph = False


class TrainingError(NetlatheError):
    """A loss that is no longer a number, weights that do not fit, or settings out of range."""


class LostRankError(TrainingError):
    """Another process of the run is gone."""


class ToldElsewhereError(TrainingError):
    """An error that another process of the run tells, so that this one need not."""

    is_told_elsewhere = True


def refuse(config: object, wrong: Mapping[str, bool]) -> None:
    """Raises TrainingError that names the first of a configuration's fields that is wrong."""
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise TrainingError(f"{name} = {getattr(config, name)} is out of range in {config}; choose another")
