"""Exact decoding: the choices with the best sum of scores within limits, as an integer program."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from netlathe.archspace.decisions import Choices, DecisionSpace
from netlathe.search.costs import Constraint, show_limits
from netlathe.search.errors import SearchError, TargetError

INFEASIBLE = 2
"""scipy.optimize.milp's status where no choices keep the constraints."""


def check_limits(space: DecisionSpace, constraints: Sequence[Constraint]) -> None:
    """Raises TargetError when a limit is no limit, when no network keeps one of them, or none all of them together."""
    for constraint in constraints:
        constraint.check(space)
    if constraints:
        decode(np.where(np.isfinite(constraints[0].table.values), 0.0, -np.inf), constraints)


def decode(scores: NDArray[np.float64], constraints: Sequence[Constraint], *, gap: float = 0.0) -> Choices:
    """Choices with the largest sum of scores (as log probabilities), subject to cost <= limit for each constraint.

    A multiple-choice knapsack with one or more resources, solved as an integer program (HiGHS): to optimality, or to
    within `gap` of the best sum, in parts of it.
    scores (decisions, options); -inf where there is no option, or no longer one. Raises TargetError when no choices
    keep the limits.
    """
    alive = np.isfinite(scores)
    # The solver's tolerance is absolute, so scores are given in units of their spread.
    gains = scores[alive] / (float(np.ptp(scores[alive])) or 1.0)
    rows, _ = np.nonzero(alive)
    one_each = LinearConstraint((rows == np.arange(len(alive))[:, None]).astype(float), 1, 1)
    # The solver may break a row by 1e-6 of its scale; then a limit that much lower is kept for certain.
    for tighter in (0.0, 4e-6, 1e-4):
        budgets = [one_each, *(_budget(c, alive, c.limit * (1 - tighter)) for c in constraints)]
        with _printing_to_stderr():
            solved = milp(
                -gains, constraints=budgets, integrality=np.ones(len(rows)), bounds=Bounds(0, 1),
                options={"mip_rel_gap": gap},
            )  # fmt: skip
        if solved.x is None:
            if solved.status != INFEASIBLE:
                raise SearchError(f"the integer program of the decode was not solved: {solved.message}")
            break
        chosen = np.full(alive.shape, -1.0)
        chosen[alive] = solved.x
        choices = tuple(chosen.argmax(1).tolist())
        if all(c.is_met(choices) for c in constraints):
            return choices
    told = show_limits(constraints)
    raise TargetError(f"no network meets all of these limits: {told}; raise one of them, or search a smaller space")


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    """Context in which what C code prints goes to standard error. HiGHS prints a line of its own where it repairs a
    solution, whatever its options, and a program's standard output may be read by another program."""
    try:
        libc, saved = ctypes.CDLL(None), os.dup(1)
    except (OSError, TypeError):  # there is no standard output, or the C library has no handle (Windows)
        yield
        return
    try:
        libc.fflush(None)
        os.dup2(2, 1)
        yield
    finally:
        libc.fflush(None)  # what is printed into a pipe is kept back until here
        os.dup2(saved, 1)
        os.close(saved)


def _budget(constraint: Constraint, alive: NDArray[np.bool_], limit: float) -> LinearConstraint:
    # In units of the limit, so that the solver's absolute tolerance is a relative one.
    table = constraint.table
    return LinearConstraint(table.values[alive] / constraint.limit, -np.inf, (limit - table.base) / constraint.limit)


def dispensable(
    log_probabilities: NDArray[np.float64], floor: float, constraints: Sequence[Constraint]
) -> list[tuple[int, int]]:
    """Options that can be dropped, as (decision, option): less probable than `floor`, the least probable first, and
    only as long as some network keeps all limits without it."""
    left = log_probabilities.copy()
    dropped = []
    for index in np.argsort(left, axis=None).tolist():
        place = divmod(index, left.shape[1])
        value = left[place]
        if value >= math.log(floor):
            break
        if not np.isfinite(value):
            continue
        left[place] = -np.inf
        if np.isfinite(left[place[0]]).any() and _is_possible(left, constraints):
            dropped.append(place)
        else:
            left[place] = value
    return dropped


def _is_possible(log_probabilities: NDArray[np.float64], constraints: Sequence[Constraint]) -> bool:
    try:
        decode(log_probabilities, constraints)
    except TargetError:
        return False
    return True
