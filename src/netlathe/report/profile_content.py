"""Content of a profile: for each setup its records, its rounds over time, and what was measured again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlathe.archspace.profile_file import Again, ProfileFile, RoundConditions
from netlathe.archspace.records import LatencyRecord, Setup, noise_floor
from netlathe.archspace.sustained import SustainedRun


@dataclass(frozen=True)
class SetupContent:
    """Measurements of one setup."""

    setup: Setup
    records: tuple[LatencyRecord, ...]
    log: tuple[RoundConditions, ...]
    """Rounds in order of time."""
    again: tuple[tuple[str, Again], ...]
    """(graph's name, what it was measured again for) of the last call that did so."""
    discounted: int
    """Visits whose samples later ones have replaced, or that are to replace others."""
    anchors: tuple[str, ...]
    """Names of the anchors."""
    loads: tuple[SustainedRun, ...] = ()
    """Loads that lasted, which heated the device before its rounds, in order of time."""

    @property
    def measured(self) -> list[LatencyRecord]:
        """Records that have a latency."""
        return [record for record in self.records if record.measurement is not None]

    @property
    def unstable(self) -> list[LatencyRecord]:
        """Records whose rounds disagree."""
        return [one for one in self.records if one.measurement is not None and not one.measurement.is_stable]

    @property
    def failed(self) -> list[LatencyRecord]:
        """Records without a latency."""
        return [record for record in self.records if record.measurement is None]

    @property
    def noise_floor(self) -> float | None:
        """Median relative difference between two halves of a measurement's rounds."""
        return noise_floor(self.records)

    @property
    def redone(self) -> list[tuple[str, int]]:
        """Reasons for which rounds did not count, and how many each."""
        reasons = Counter(str(one.conditions["redone"]) for one in self.log if "redone" in one.conditions)
        return reasons.most_common()


@dataclass(frozen=True)
class ProfileContent:
    """A profile file."""

    path: Path
    setups: tuple[SetupContent, ...]
    made: tuple[tuple[float, Mapping[str, Any]], ...] = ()
    """(time, command and versions) of the calls that measured into it."""


def read_profile(path: Path) -> ProfileContent:
    """Raises FormatError for a file that is no profile."""
    with ProfileFile(path) as file:
        return ProfileContent(path, tuple(_of_setup(file, setup) for setup in file.setups()), tuple(file.made()))


def _of_setup(file: ProfileFile, setup: Setup) -> SetupContent:
    records = tuple(file.records(setup))
    names = {record.graph.key: record.name for record in records}
    visits, counting = (file.rounds(setup, counting=one) for one in (False, True))
    left_out = sum(len(rounds) - len(counting.get(key, ())) for key, rounds in visits.items())
    again = tuple((names.get(key, key), one) for key, one in file.again(setup).items())
    anchors = tuple(names.get(key, key) for key in file.anchors(setup))
    loads = tuple(file.loads(setup))
    return SetupContent(setup, records, tuple(file.round_log(setup)), again, left_out, anchors, loads)
