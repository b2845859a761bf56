"""Summary of a campaign: what it achieved, and what to do about what it did not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from netlathe.archspace.profile_file import Again, ProfileFile, RoundConditions
from netlathe.archspace.records import LatencyRecord, Setup, Status, noise_floor
from netlathe.profiler.protocol import FEWEST_ROUNDS, is_calm

BUSY_CPUS = 0.3
"""Mean number of cores kept busy by other programs above which a warning is given."""

REDONE_SHARE = 0.2
"""Share of rounds measured again above which a warning is given."""


@dataclass(frozen=True)
class CampaignSummary:
    """The state of a campaign's items when it ended."""

    setup: Setup
    records: tuple[LatencyRecord, ...]
    """The items' measurements, from this campaign or an earlier one."""
    failed: tuple[LatencyRecord, ...]
    unsupported: tuple[LatencyRecord, ...]
    unfinished: tuple[str, ...]
    """Names of items whose rounds do not suffice yet, for a record or to measure it again."""
    again: tuple[str, ...]
    """Names of items that were measured again, by this call and those that it continued."""
    reused: int
    """Items that earlier campaigns had finished."""
    rounds: int
    wall_s: float
    inference_s: float
    """Time in runs; on a phone, warm-ups included."""
    redone: int
    """Rounds of this campaign that did not count and were measured again."""
    noise_floor: float | None
    """Median relative difference between two halves of a measurement's rounds."""
    anchor_noise: float | None
    """Noise floor of the anchor blocks alone, which stand in every round."""
    drift_range: tuple[float, float] | None
    """Fastest and slowest round of this campaign relative to the usual speed; None without rounds."""
    warnings: tuple[str, ...]
    """Each with what to do about it."""


@dataclass(frozen=True)
class Effort:
    """Account of one campaign's rounds and time; the defaults where there was nothing to measure."""

    round_starts: Sequence[float] = ()
    """Times at which its rounds started, in seconds since the epoch."""
    anchors: Sequence[str] = ()
    """Keys of the anchor blocks that ran until the end."""
    redone: int = 0
    """Rounds that did not count and were measured again."""
    inference_s: float = 0.0
    needed_s: float = 0.0
    """Time that would give each unfinished item a record."""


def summarize(
    profile: ProfileFile,
    setup: Setup,
    names: Mapping[str, str],
    effort: Effort,
    *,
    again: Mapping[str, Again],
    reused: int,
    wall_s: float,
) -> CampaignSummary:
    """Summary of the items, {graph key: name}, after a campaign of that effort."""
    found = {record.graph.key: record for record in profile.records(setup)}
    wanted = [found[key] for key in names if key in found]
    records, failed, unsupported = (
        tuple(record for record in wanted if record.status is status)
        for status in (Status.OK, Status.FAILED, Status.UNSUPPORTED)
    )
    begun = {key for key, one in again.items() if not one.is_done}
    unfinished = tuple(name for key, name in names.items() if key not in found or key in begun)
    done = tuple(name for key, name in names.items() if key in again and key not in begun)
    rounds, log = len(effort.round_starts), _counted(profile.round_log(setup), set(effort.round_starts))
    drifts = [info.drift for info in log]
    warnings = [
        *_outcome_warnings(failed, unsupported, unfinished, effort.needed_s),
        *_kept_warnings(
            {name: again[key].message for key, name in names.items() if key in again and again[key].message}
        ),
        *quality_warnings(records),
        *machine_warnings(log),
        *redo_warnings(effort.redone, rounds),
    ]
    return CampaignSummary(
        setup, records, failed, unsupported, unfinished, done, reused, rounds, wall_s, effort.inference_s,
        effort.redone, noise_floor(records), noise_floor([found[key] for key in effort.anchors if key in found]),
        (min(drifts), max(drifts)) if drifts else None, tuple(warnings),
    )  # fmt: skip


def _counted(log: Sequence[RoundConditions], round_starts: Collection[float]) -> list[RoundConditions]:
    """Rounds that started then and were not measured again."""
    return [info for info in log if info.started_at in round_starts and "redone" not in info.conditions]


def _some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _outcome_warnings(
    failed: Sequence[LatencyRecord],
    unsupported: Sequence[LatencyRecord],
    unfinished: Sequence[str],
    needed_s: float,
) -> list[str]:
    warnings = []
    if failed:
        names = _some([record.name for record in failed])
        warnings.append(f"{len(failed)} failed ({names}: {failed[0].message}); the same command tries them again")
    if unsupported:
        names = _some([record.name for record in unsupported])
        warnings.append(
            f"{len(unsupported)} do not run on this setup ({names}: {unsupported[0].message}); "
            "leave them out of the search space, or choose another runtime; `netlathe profile --again failed` tries "
            "them once more"
        )
    if unfinished:
        warnings.append(
            f"the time budget was out before {len(unfinished)} had enough rounds ({_some(unfinished)}); the same "
            f"command continues, and about {max(1, needed_s):.0f} s more give each the {FEWEST_ROUNDS} rounds that it "
            "needs at least"
        )
    return warnings


def _kept_warnings(reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    return [
        f"{len(reasons)} could not be measured again ({_some(list(reasons))}: {next(iter(reasons.values()))}); their "
        "earlier records stay"
    ]


def quality_warnings(records: Sequence[LatencyRecord]) -> list[str]:
    """Warning of a profile's unstable latencies, if any."""
    unstable = [r.name for r in records if r.measurement is not None and not r.measurement.is_stable]
    if not unstable:
        return []
    return [
        f"{len(unstable)} of {len(records)} latencies are unstable ({_some(unstable)}): their rounds disagree; close "
        "other programs and measure them again, `netlathe profile --again unstable`"
    ]


def redo_warnings(redone: int, rounds: int) -> list[str]:
    """Whether too many rounds had to be measured again."""
    if redone <= REDONE_SHARE * rounds:
        return []
    return [
        f"{redone} of {rounds} rounds had to be measured again, for heat or a changing speed; keep the device cool and "
        "free of other work"
    ]


def machine_warnings(log: Sequence[RoundConditions]) -> list[str]:
    """Warnings of what disturbed the machine in these rounds."""
    warnings = []
    odd = [info.drift for info in log if not is_calm(info.drift)]
    if len(odd) > 0.1 * len(log):
        warnings.append(
            f"in {len(odd)} of {len(log)} rounds the machine ran at {1 / max(odd):.2f} to {1 / min(odd):.2f} times its "
            "usual speed; times are corrected for it, but steady power, cooling and no other programs are better"
        )
    shares = [info.conditions["other_cpus"] for info in log if "other_cpus" in info.conditions]
    busy = [share for share in shares if isinstance(share, int | float)]
    if busy and sum(busy) / len(busy) > BUSY_CPUS:
        warnings.append(
            f"other programs kept {sum(busy) / len(busy):.1f} cores busy meanwhile; close them for steadier times"
        )
    return warnings
