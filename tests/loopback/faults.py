"""Ways in which a benchmark goes wrong on a real phone, made to happen on purpose."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# What each kind does, and the arguments that it takes.
KINDS: Mapping[str, tuple[str, ...]] = {
    "crash": (),  # segmentation fault in the middle of the runs: 139
    "abort": (),  # a failed check in the middle of the runs: 134
    "killed": (),  # the low-memory killer: 137
    "hang": (),  # never returns, prints nothing more
    "garbage": (),  # bytes that are no text, 0
    "truncated": (),  # ends in the middle of the line of the runs, 0
    "wrong_tool": (),  # prints what the CompiledModel tool of the same name prints, 0
    "no_runs": (),  # the runs end before the first: count=0, 0
    "not_executable": (),  # "Permission denied", as of a file without its x bit: 126
    "fails": ("message",),  # prints ERROR: message and "Benchmarking failed.", 1
    "no_xnnpack": (),  # XNNPACK takes nothing of the model: TFLite's own kernels run all of it
    "no_opencl": (),  # there is no OpenCL library: the GPU delegate falls back to OpenGL
    "slow": ("factor", "idle"),  # each run takes `factor` times as long, at full load unless `idle`
    "clock_jump": ("seconds",),  # the clock steps by so much in the middle of the runs; back: they last so much longer
    "heat": ("status", "temperatures"),  # the phone is that hot from the middle of the runs on
    "cap": ("core", "khz"),  # the governor caps that core's group from the middle of the runs on
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """One way to go wrong, at certain calls.

    Attributes:
        kind: a key of `KINDS`.
        calls: numbers of the calls that it hits, from 1; None: all.
        key: stem of the model's file name, calls are then counted for that model alone; None: all models.
        arguments: what the kind takes.
    """

    kind: str
    calls: Sequence[int] | None
    key: str | None
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {', '.join(KINDS)}")
        unknown = set(self.arguments) - set(KINDS[self.kind])
        if unknown:
            raise ValueError(f"fault {self.kind!r} takes no {', '.join(sorted(unknown))}")

    def hits(self, key: str, call_of_key: int, call: int) -> bool:
        """Whether it happens at a call: number `call` of all, number `call_of_key` of the model `key`."""
        if self.key is not None and self.key != key:
            return False
        number = call if self.key is None else call_of_key
        return self.calls is None or number in self.calls

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
