"""compress' branch of the error tree.

CompressError
"""

from __future__ import annotations

from netlathe.archspace.errors import NetlatheError


class CompressError(NetlatheError):
    """A network that cannot be shaped as asked: unknown groups, channels, blocks or segments."""

    is_paragraph = True  # names come from files
