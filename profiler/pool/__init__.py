"""Many devices on one campaign: leases, work divided by graph, an overlap that calibrates units of one model."""

from netlathe.profiler.pool.board import PoolBoard
from netlathe.profiler.pool.calibration import UnitLevel, calibrate
from netlathe.profiler.pool.member import Member, MemberState, PoolPlan, PoolWork
from netlathe.profiler.pool.run import run_pool
from netlathe.profiler.pool.work_queue import WorkQueue, make_pool, overlap_of, units_of

__all__ = [
    "Member",
    "MemberState",
    "PoolBoard",
    "PoolPlan",
    "PoolWork",
    "UnitLevel",
    "WorkQueue",
    "calibrate",
    "make_pool",
    "overlap_of",
    "run_pool",
    "units_of",
]
