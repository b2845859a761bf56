"""Families of networks, and the error of predictions that know nothing of the predicted one's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netlathe.cli.console import Terminal
from netlathe.words import percent

FloatArray = NDArray[np.float64]
Held = Callable[[NDArray[np.intp], NDArray[np.intp]], FloatArray]
"""Predictor of the networks of some rows by those of other rows, (train, test) -> ms, shape (test,) or (3, test) with
the ends of the 90 % intervals; NaN where it refuses."""


class Judged(NamedTuple):
    """Held-out predictions of n networks."""

    predicted_ms: FloatArray
    low_ms: FloatArray
    high_ms: FloatArray


def family(name: str) -> str:
    """The first letters of a network's name, without a library's prefix and a version."""
    letters = re.match(r"[a-z]+", re.sub(r"^(tv_|timm_|torchvision_)", "", name.lower()))
    return re.sub(r"v$", "", letters[0]) if letters else name


def leave_families_out(names: Sequence[str], held: Held) -> Judged:
    """Each network predicted by `held` with all networks of other families."""
    families = np.array([family(name) for name in names])
    values = np.full((3, len(names)), np.nan)
    for one in sorted(set(families)):
        test, train = np.flatnonzero(families == one), np.flatnonzero(families != one)
        values[:, test] = np.broadcast_to(held(train, test), (3, len(test)))
    return Judged(*values)


def show(ways: dict[str, Judged], names: Sequence[str], measured_ms: FloatArray, terminal: Terminal) -> None:
    """A table of the ways, where a refused prediction is a miss of 10 %, and of the first one by family."""
    rows = []
    for name, judged in ways.items():
        errors = np.abs(judged.predicted_ms / measured_ms - 1)
        priced = np.isfinite(errors)
        inside = (judged.low_ms <= measured_ms) & (measured_ms <= judged.high_ms)
        has_interval = bool((judged.low_ms[priced] < judged.high_ms[priced]).all())
        held = percent(float(inside[priced].mean())) if has_interval else "-"
        shares = (percent(float(errors[priced].mean())), percent(float(np.mean(errors <= 0.1))))
        rows.append((name, int((~priced).sum()), *shares, held))
    terminal.table((f"{len(names)} networks, their families left out", "refused", "MAPE", "±10 %", "90 % holds"), rows)
    families = np.array([family(name) for name in names])
    first = next(iter(ways.values()))
    ratios = first.predicted_ms / measured_ms - 1
    table = []
    for one in sorted(set(families)):
        members = ratios[(families == one) & np.isfinite(ratios)]
        if len(members):
            table.append((one, len(members), percent(float(np.abs(members).mean())), percent(float(members.mean()))))
    terminal.table(("family", "n", "MAPE", "bias"), table)
