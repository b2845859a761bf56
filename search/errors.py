"""search's branch of the error tree.

SearchError
└── TargetError     a latency target that no network of the space meets, or a table with holes
"""

from __future__ import annotations

from netlathe.archspace.errors import NetlatheError


class SearchError(NetlatheError):
    """Base of search's failures."""


class TargetError(SearchError):
    """A latency target that no network of the space meets, or a latency table with holes."""
