"""The protocol of a device, which is all that a campaign knows of it, and capabilities that only some have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self, runtime_checkable

from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.archspace.graph import Graph
from netlathe.archspace.ops import Zeros
from netlathe.archspace.records import Setup
from netlathe.profiler.errors import MeasurementError, ProfilerError, UnsupportedGraphError
from netlathe.profiler.op_profile import OpTime


@dataclass(frozen=True)
class Visit:
    """Consecutive runs of one loaded graph: `warmups` that do not count, then `runs` that do."""

    key: str
    runs: int
    warmups: int


@dataclass(frozen=True)
class Timing:
    """Result of one visit: times in ms, or why there are none."""

    key: str
    outcome: Sequence[float] | MeasurementError | UnsupportedGraphError
    details: Mapping[str, float] = field(default_factory=dict)
    """Further facts that the runtime told of this graph, as init_ms or peak_memory_mb. Units stand in the names."""
    all_runs_ms: float | None = None
    """Time in all of the visit's runs, in ms, where `outcome` only sums them up."""

    @property
    def inference_ms(self) -> float:
        """Time in runs, in ms."""
        if isinstance(self.outcome, ProfilerError):
            return 0.0
        return sum(self.outcome) if self.all_runs_ms is None else self.all_runs_ms


@dataclass(frozen=True)
class RoundEnd:
    """End of a round, to which the timings since the last one belong."""

    started_at: float
    """Time at which the round started, in seconds since the epoch."""
    conditions: Mapping[str, float | str]
    """Conditions that may explain the times: load, frequency, temperature, as far as readable. Units stand in the
    names."""
    redo: str = ""
    """Reason why the round must not count, as 'thermal status 2'; '' when it may."""


@dataclass(frozen=True)
class Waiting:
    """Wait of a device until it is fit to go on."""

    reason: str
    """Condition that has to change first, with the value needed where that is a temperature."""
    waited_s: float = 0.0
    limit_s: float | None = None
    """Time at which the device gives up, in seconds since the wait began; None where the wait ends by itself."""


DeviceEvent = Timing | RoundEnd | Waiting

SUSTAINED = ("speed", "sustained")
"""Detail of a setup whose device is measured under a load that lasts, throttled by its heat."""


def is_sustained(setup: Setup) -> bool:
    """Whether its latencies are those under a load that lasts."""
    return SUSTAINED in setup.details


Report = Callable[[str], None]
"""Function that is told what a person should know or do."""


class Device(Protocol):
    """A place where graphs run and are timed. Use it in a with statement.

    One graph after another is loaded; then rounds visit loaded graphs in ever new orders; graphs that are finished are
    unloaded, so rounds get shorter. All methods raise DeviceError once the device cannot be used any more.
    """

    @property
    def setup(self) -> Setup:
        """Setup that the times depend on; constant while the device is open."""

    def load(self, key: str, graph: Graph) -> None:
        """Makes the graph ready to run under `key`, with weights and inputs of the device's choice; a device that is
        far away may put off sending it until the next round.

        Raises UnsupportedGraphError when the runtime does not execute it, MeasurementError when it should have.
        """

    def unload(self, keys: Iterable[str]) -> None:
        """Frees what these graphs hold; keys that are not loaded are ignored."""

    def time_rounds(self, rounds: Sequence[Sequence[Visit]], *, after: float = 0.0) -> Iterator[DeviceEvent]:
        """Makes the visits of each round in this order and yields every visit's Timing as it comes, then its RoundEnd,
        so that many rounds may be one shell session on a phone. All rounds start after the time `after` (seconds since
        the epoch, even if the clock was set back) and at different times.

        A graph that fails yields its MeasurementError and the others go on; one that turns out only now not to be
        supported yields that. A round that was cut off midway may end early. To stop, close the iterator.
        """

    def recovered(self) -> Iterator[DeviceEvent]:
        """Events of rounds on this setup that an interrupted campaign has measured but perhaps not stored. The
        device forgets each when the next one is asked for."""

    def close(self) -> None:
        """Frees everything and restores what was changed; closing twice is harmless."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, value: object, traceback: object) -> None: ...


class SteadyStep(Protocol):
    """Outcome of one step that keeps a device steady."""

    @property
    def step(self) -> str: ...

    @property
    def state(self) -> str:
        """held, refused or unavailable."""

    @property
    def report(self) -> str:
        """A line for a person, with what to do where the step does not hold."""


@runtime_checkable
class HoldsSteady(Protocol):
    """Capability of a device that changes its settings, to keep times steady, until it is closed."""

    @property
    def steps(self) -> Sequence[SteadyStep]: ...


@runtime_checkable
class AcceptsModels(Protocol):
    """Capability of a device that runs given .tflite files in place of ones that it writes from graphs."""

    @property
    def models(self) -> MutableMapping[str, bytes]:
        """Content of .tflite files by graph key, taken when a graph of that key is loaded."""


@runtime_checkable
class KeepsAside(Protocol):
    """Capability of a device that keeps results until a profile recovers them, and apart those that belong to none."""

    is_aside: bool
    """Whether the rounds belong to no profile."""


class OpProfile(Protocol):
    """Times of the kernels of one graph, as its runtime starts them."""

    @property
    def op_times(self) -> Sequence[OpTime]: ...

    @property
    def peak_memory_mb(self) -> float | None: ...


@runtime_checkable
class ProfilesOps(Protocol):
    """Capability of a device that tells the time of single kernels."""

    def profile_ops(self, keys: Sequence[str]) -> Iterator[tuple[str, OpProfile]]:
        """Profiles of these loaded graphs, by key; graphs that fail are left out. Raises DeviceError."""


@dataclass(frozen=True)
class Observation:
    """Facts of one start of a model file beside its times; None is what the device does not tell."""

    init_ms: float | None = None
    """Time to load the file and prepare it to run."""
    first_inference_ms: float | None = None
    peak_memory_mb: float | None = None
    peak_memory_of: str = ""
    """Process or part of it whose memory that is."""
    delegated: Mapping[str, float | None] = field(default_factory=dict)
    """Share of the ops that each delegate or provider executes; None for a part of an unknown size."""
    op_times: tuple[OpTime, ...] = ()
    """Times of the kernels in runs of their own, as watching takes time."""
    op_runs_ms: float | None = None
    """Latency of an inference in those runs."""


@runtime_checkable
class TimesFiles(Protocol):
    """Capability of a device that runs model files as they are, besides graphs."""

    @property
    def file_format(self) -> FileFormat: ...

    @property
    def setup(self) -> Setup: ...

    def load_file(self, key: str, file: ModelFile) -> None:
        """Makes the file ready to run under `key`, as `Device.load` does a graph, with random values in its inputs.

        Raises UnsupportedGraphError where the runtime refuses it, MeasurementError where it should have run.
        """

    def observe(self, keys: Sequence[str], *, op_profile: bool = False) -> Mapping[str, Observation]:
        """Observations of starts of these loaded files, by key, with the time of each kernel if `op_profile`. Files
        that fail now are left out."""


def check_loadable(graph: Graph, setup: Setup) -> None:
    """Raises UnsupportedGraphError for a graph that computes nothing, MeasurementError for one of another batch."""
    if all(isinstance(node.op, Zeros) for node in graph.nodes):
        raise UnsupportedGraphError("the graph computes nothing from its input: there is nothing to time")
    batches = {shape[0] for shape in graph.inputs}
    if batches != {setup.batch}:
        raise MeasurementError(
            f"the graph takes batches of {', '.join(map(str, sorted(batches)))}, this setup of {setup.batch}; "
            f"build it with graph(batch={setup.batch})"
        )
