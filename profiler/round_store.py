"""Rounds and outcomes of a campaign on their way into the profile file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from netlathe.archspace.graph import Graph
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Status
from netlathe.profiler.again import Repetition
from netlathe.profiler.device import Device, DeviceEvent, RoundEnd, Timing
from netlathe.profiler.errors import DeviceError, MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.ledger import Ledger
from netlathe.profiler.protocol import ANCHORS
from netlathe.profiler.redo import RedoRule


class AnchorBlocks:
    """The anchor blocks of a profile, and which of them run on the device."""

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self.graphs = graphs
        """All of them, by key."""
        self.running: list[str] = []
        """Keys of those that run."""
        self._reasons: list[str] = []

    def drop(self, key: str, reason: str) -> None:
        """Does without an anchor that fails."""
        if key in self.running:
            self.running.remove(key)
            self._reasons.append(reason)

    def check(self) -> None:
        """Raises DeviceError once none of them runs any more."""
        if not self.running:
            raise DeviceError(f"no anchor block runs on this device any more: {'; '.join(self._reasons)}")


def load_anchors(device: Device, profile: ProfileFile) -> AnchorBlocks:
    """Loads the profile's anchors, so that its reference stays, or ANCHORS into a profile without any.

    Raises DeviceError where none of them runs on the device.
    """
    setup = device.setup
    graphs = profile.anchors(setup)
    for block in () if graphs else ANCHORS:
        graph = block.graph(setup.batch)
        profile.add_graph(block.name, "block", graph)
        graphs[graph.key] = graph
    anchors, reason = AnchorBlocks(graphs), ""
    for key, graph in graphs.items():
        try:
            device.load(key, graph)
            anchors.running.append(key)
        except (UnsupportedGraphError, MeasurementError) as error:
            reason = str(error)
    if not anchors.running:
        raise DeviceError(f"none of the {len(graphs)} anchor blocks runs on this device: {reason}")
    profile.set_anchors(setup, graphs)
    return anchors


class RoundStore:
    """Rounds and outcomes of one setup, in memory and in the profile file alike.

    A round is stored as it ends. One that must not count leaves only what it says about the machine.
    """

    def __init__(
        self, profile: ProfileFile, repetition: Repetition, anchors: AnchorBlocks, redo_drift: float | None
    ) -> None:
        self.profile, self.setup = profile, repetition.setup
        self.repetition, self.anchors = repetition, anchors
        self.redo = RedoRule(redo_drift)
        self.ledger = Ledger(profile.rounds(self.setup), list(anchors.graphs))
        self.round_starts: list[float] = []
        """Times at which this campaign's rounds started, in seconds since the epoch."""

    @property
    def latest_start(self) -> float:
        """Time at which the latest round known started, in seconds since the epoch."""
        return max((*self.ledger.drifts, *self.round_starts), default=0.0)

    def recovered_rounds(self, device: Device, keys: Collection[str]) -> Iterator[DeviceEvent]:
        """Events of whole rounds that the device has kept of an interrupted campaign and the file does not hold; of
        graphs other than `keys` and the anchors, nothing."""
        known = {info.started_at for info in self.profile.round_log(self.setup)}
        running = self.anchors.running
        timings: list[Timing] = []
        for event in device.recovered():
            if isinstance(event, Timing) and not isinstance(event.outcome, ProfilerError):
                timings += [event] if event.key in keys or event.key in running else []
            elif isinstance(event, RoundEnd):
                if event.started_at not in known and any(timing.key in running for timing in timings):
                    yield from timings
                    yield event
                timings = []

    def begin_repetition(self) -> None:
        """Counts only rounds from now on for graphs that are measured again."""
        self.repetition.begin(self.latest_start)
        self.ledger.since = self.repetition.since

    def add_round(self, end: RoundEnd, samples: Mapping[str, Sequence[float]]) -> float:
        """Stores a round, {graph key: times in ms}, and returns its drift. Raises DeviceError where no anchor runs any
        more, or once too many rounds had to be measured again."""
        self.anchors.check()
        running = self.anchors.running
        drifts = self.ledger.preview(end.started_at, samples)
        drift = drifts.get(end.started_at, 1.0)
        redo = self.redo.reason(end, [key for key in running if key not in samples], drifts, self.round_starts)
        kept = samples
        if redo:
            # A round that drifted still helps to tell the usual speed; a hot one does not.
            kept = {} if end.redo else {key: samples[key] for key in running if key in samples}
        moved = self.ledger.add(end.started_at, kept) if kept else {}
        conditions = {**end.conditions, "redone": redo} if redo else end.conditions
        # The first rounds move the reference a little: earlier drifts follow, so that the file is always consistent.
        self.profile.add_round(
            self.setup, kept, started_at=end.started_at, drift=drift, conditions=conditions, moved=moved
        )
        self.round_starts.append(end.started_at)
        return drift

    def record_outcome(self, key: str, status: Status, message: str, details: Mapping[str, float] | None) -> None:
        """Stores what became of a graph; an anchor that failed is done without."""
        if key in self.repetition.since:
            rounds, drifts = self.ledger.rounds(key), self.ledger.drifts
            self.repetition.record_outcome(key, (status, message, details), rounds, drifts)
        else:
            self.profile.set_outcome(self.setup, key, status, message, details)
        if status is not Status.OK:
            self.anchors.drop(key, message)


def discard_recovered(events: Iterable[DeviceEvent]) -> None:
    """Reads events of no use to the end, so that the device forgets them."""
    for _ in events:
        pass
