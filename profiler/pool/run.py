"""A pool of devices at work on one profile file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace

from netlathe.archspace.pools import pool_of
from netlathe.archspace.profile_file import ProfileFile
from netlathe.profiler.device import Report
from netlathe.profiler.pool.board import PoolBoard
from netlathe.profiler.pool.member import APART, Member, PoolPlan
from netlathe.profiler.pool.processes import run_in_process, run_members
from netlathe.profiler.pool.work_queue import apart_of, unit_levels

MOST_GROUPS = 256
SCAN_S = 20.0
"""Time after which new devices are looked for."""


def run_pool(
    groups: Sequence[Sequence[Member]],
    plan: PoolPlan,
    board: PoolBoard,
    report: Report,
    *,
    find: Callable[[], Sequence[Member]] | None = None,
    scan_s: float = SCAN_S,
) -> None:
    """Has all devices measure what the board gives them, until nothing is left that one of them could do. Their states
    stand on the board.

    Each of several groups has a process of its own; one alone, and devices that `find` finds later (called every
    `scan_s` seconds, it returns all that are there), are threads of this one. Raises NetlatheError where something
    other than a device fails, as the file, once all have ended; KeyboardInterrupt likewise.
    """
    known = {member.name for group in groups for member in group}
    with ThreadPoolExecutor(MOST_GROUPS) as threads:
        run = run_in_process if len(groups) > 1 else run_members
        futures = {threads.submit(run, group, plan, board, report) for group in groups}
        try:
            while futures:
                ended, futures = wait(futures, scan_s if find else None, FIRST_COMPLETED)
                for one in ended:
                    one.result()
                for member in find() if find and futures else ():
                    if member.name not in known:
                        known.add(member.name)
                        report(f"{member.name}: joins the pool")
                        futures.add(threads.submit(run_members, [member], plan, board, report))
        except BaseException:
            board.stop()
            raise
    _tell_apart(plan, board)


def _tell_apart(plan: PoolPlan, board: PoolBoard) -> None:
    """Tells of devices that had finished before the others' measurements showed that they differ."""
    done = {one.setup: one for one in board.states.values() if one.state == "finished" and one.setup is not None}
    if not done:
        return
    with ProfileFile(plan.path) as profile:
        for setup, state in done.items():
            if setup in apart_of(unit_levels(profile, pool_of(setup))):
                board.tell(replace(state, state="apart", note=APART))
