"""Strategies of a compression by name."""

from __future__ import annotations

from netlathe.archspace.errors import NetlatheError, did_you_mean

INTEGER_PROGRAM, UNIFORM, NETADAPT = "integer-program", "uniform", "netadapt"
"""Strategies beside the black-box ones."""


def check_strategy(name: str) -> None:
    """Raises NetlatheError for a strategy that is unknown, or whose packages are not installed."""
    known: tuple[str, ...] = (INTEGER_PROGRAM, UNIFORM, NETADAPT)
    if name not in known:
        from netlathe.search.strategies.blackbox.names import STRATEGIES, check_packages

        if name not in STRATEGIES:
            known = (*known, *STRATEGIES)
            meant = did_you_mean(name, known)
            raise NetlatheError(f"strategy {name!r:.40}: unknown{meant}; known are {', '.join(known)}")
        check_packages(name)
