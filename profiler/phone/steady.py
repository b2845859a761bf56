"""Steps that keep a phone steady while it is measured, by steady.sh, and put everything back afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from netlathe.profiler.adb import AdbConnection
from netlathe.profiler.errors import DeviceError

State = Literal["held", "refused", "unavailable", "restored", "failed"]

TIMEOUT_S = 90.0
"""Each of Android's own tools takes up to a second, and dumpsys gives a hung service ten."""

CHANGING = ("wake", "stay_awake", "fixed_performance")
"""The steps that change something on the phone; the others only look."""

_REMEDIES = {
    "stay_awake": "the screen may go off meanwhile; turn on 'Stay awake' in the phone's developer options",
    "wake": "turn the screen on by hand, and leave it on",
    "fixed_performance": "clocks will vary more, so more rounds are needed; keep the phone cool and out of its case",
    "cores": "turn the screen on and the battery saver off, or choose other cores",
    "background": "let the phone finish its updates and close its apps; until then, more rounds are needed",
    "battery": "charge it and turn the battery saver off; until then, the clocks are held back and times are too long",
}


@dataclass(frozen=True)
class StepOutcome:
    """Outcome of one step: held, refused or unavailable on this phone (apply); restored or failed (restore)."""

    step: str
    state: State
    detail: str = ""
    """Words of the phone."""

    @property
    def report(self) -> str:
        """A line for a person, with what to do where the step did not hold."""
        detail = f" ({self.detail})" if self.detail else ""
        if self.state in ("held", "restored"):
            return f"{self.step}: {self.state}{detail}"
        if self.state == "failed":
            return f"{self.step}: could not be put back{detail}; run netlathe on this phone again, or set it by hand"
        return f"{self.step}: {self.state}{detail}; {_REMEDIES.get(self.step, 'times may vary more')}"


def parse_outcomes(text: str) -> list[StepOutcome]:
    """Reads steady.sh's output. Raises DeviceError on a line of another form, as a step that is lost could stay
    unrestored."""
    outcomes = []
    for line in text.splitlines():
        step, state, detail = (*line.split(maxsplit=2), "", "", "")[:3]
        if state not in get_args(State):
            raise DeviceError(f"steady.sh said {line!r}, where 'STEP held' or the like was expected")
        outcomes.append(StepOutcome(step, state, detail.strip()))  # type: ignore[arg-type]
    return outcomes


def apply(connection: AdbConnection, directory: str, steps: Sequence[str]) -> list[StepOutcome]:
    """Applies wake, stay_awake, fixed_performance, cores=MASK, background and battery, or some of them, in this order:
    staying awake wakes the screen, too, so the screen's old state is read first. What steps change is journaled on the
    phone before. Raises DeviceError when that fails."""
    return _run(connection, directory, "apply", steps)


def restore(connection: AdbConnection, directory: str) -> list[StepOutcome]:
    """Undoes what the journal on the phone says, the last step first, whoever left it. Raises DeviceError."""
    return _run(connection, directory, "restore", ())


def _run(connection: AdbConnection, directory: str, action: str, steps: Iterable[str]) -> list[StepOutcome]:
    command = shlex.join(["sh", f"{directory}/scripts/steady.sh", action, directory, *steps])
    result = connection.run(command, timeout_s=TIMEOUT_S)
    if result.code != 0:
        reason = (result.stderr or result.stdout).strip() or "it said nothing"
        raise DeviceError(f"{connection.address}: steady.sh {action} failed with exit code {result.code}: {reason}")
    return parse_outcomes(result.stdout)
