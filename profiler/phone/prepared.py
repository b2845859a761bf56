"""A phone made ready to be measured, and made ready again after each break of its link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from netlathe.profiler.benchmark_tool import BenchmarkOptions
from netlathe.profiler.device import Waiting
from netlathe.profiler.errors import DeviceError
from netlathe.profiler.phone import steady
from netlathe.profiler.phone.conditions import Conditions, SkinWatch
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.files import libraries_of, options_for
from netlathe.profiler.phone.holding import describe_phone
from netlathe.profiler.phone.link import PhoneLink
from netlathe.profiler.phone.litert_tool import LIBRARIES
from netlathe.profiler.phone.provision import Binary, find_binary
from netlathe.profiler.phone.topology import core_mask
from netlathe.profiler.phone.workspace import Workspace

COOL_DOWN_S = 600.0
POLL_S = 3.0

SAFE_STATUS = 3
"""Android's thermal status (severe) up to which a load that lasts goes on; above, Android itself ends things."""

T = TypeVar("T")


class PreparedPhone:
    """A phone with scripts and benchmark_model in place, awake, and with its clocks as steady as it allows.

    `prepare` comes first. `retry` then does what may be done twice, and takes the phone up again after each break of
    the link; `on_resume` is called then, to put back what else is needed. All methods raise DeviceError.
    """

    description: PhoneDescription
    binary: Binary
    options: BenchmarkOptions
    """Options that were asked for, for this binary."""
    libraries: Mapping[str, bytes]
    """Shared libraries through which the binary reaches an accelerator."""
    mask: str
    """The cores to run on, in hexadecimal; '' for the scheduler's choice."""
    cores: set[int] | None
    """Numbers of the cores to run on, whose caps count, None for all."""
    start: Conditions
    """Conditions with which later ones are compared, since the phone booted."""

    def __init__(
        self, link: PhoneLink, workspace: Workspace, max_thermal_status: int, *, is_sustained: bool = False
    ) -> None:
        """With `is_sustained`, the phone may get as hot as a load that lasts makes it, and its clocks are its own."""
        self.link, self.workspace, self.is_sustained = link, workspace, is_sustained
        self.max_thermal_status = max(max_thermal_status, SAFE_STATUS) if is_sustained else max_thermal_status
        self.address = workspace.connection.address
        self.on_resume: Callable[[], None] = lambda: None
        self.steps: list[steady.StepOutcome] = []
        """Outcomes of the steps that keep the phone steady."""

    def prepare(self, binary: Path | None, cores: str, options: BenchmarkOptions) -> None:
        """Puts everything into place. It may be done again when the link breaks: what is there is not sent twice."""
        self.workspace.open()
        self.description = describe_phone(self.workspace)
        try:
            self.mask = core_mask(self.description, cores) if cores else ""
        except DeviceError as error:  # of several phones, one may not have such cores
            raise DeviceError(f"{self.address}: {error}") from error
        self.cores = {core for core in range(64) if int(self.mask, 16) >> core & 1} if cores else None
        if self.is_sustained:  # no cap says that a round must not count
            self.cores = set()
        self.binary = find_binary(binary, self.description.abis)
        self.options = options_for(self.binary, options)
        self.libraries = libraries_of(self.binary, self.options)
        self._put_program()
        self.steps = self._hold_steady()
        self._begin()

    def _put_program(self) -> None:
        self.workspace.find_models()
        self.workspace.put_program(self.binary.content, "benchmark_model")
        if self.libraries:
            self.workspace.put_libraries(self.libraries, LIBRARIES)

    def _hold_steady(self) -> list[steady.StepOutcome]:
        """Undoes what an interrupted campaign left changed, then keeps the phone awake and its clocks steady."""
        steady.restore(self.workspace.connection, self.workspace.directory)
        steps = ["wake", "stay_awake", "fixed_performance", "background", "battery"]
        if self.is_sustained:  # that mode holds clocks which the phone can keep for long
            steps.remove("fixed_performance")
        if self.mask:
            steps.append(f"cores={self.mask}")
        outcomes = steady.apply(self.workspace.connection, self.workspace.directory, steps)
        for outcome in outcomes:
            if outcome.state == "refused":
                self.link.report(f"{self.address}: {outcome.report}")
        return outcomes

    def _begin(self) -> None:
        """Reads the conditions that later ones are compared with, since this boot."""
        self.start, self._boot_id, self._skin = self._read_conditions(), self.description.boot_id, SkinWatch()
        self._is_settled = False

    def _read_conditions(self) -> Conditions:
        result = self.workspace.run(self.workspace.command("conditions.sh"), "read the phone's conditions")
        return Conditions.parse(result.stdout)

    @property
    def performance_mode(self) -> str:
        """State of Android's fixed performance mode: held, refused or unavailable."""
        return _state(self.steps, "fixed_performance")

    def retry(self, action: Callable[[], T], error: DeviceError | None = None) -> T:
        """Retries the action while the link breaks, as PhoneLink.retry does; after each break the phone is taken up
        again first."""
        return self.link.retry(action, error, mend=self._resume)

    def _resume(self) -> None:
        """Takes the phone up where it was left, and prepares it anew where it has rebooted meanwhile."""
        build = self.description.fingerprint
        self.workspace.open()
        self.description = describe_phone(self.workspace)
        if self.description.fingerprint != build:
            raise DeviceError(f"{self.address}: Android was updated meanwhile; run the same command again")
        self._put_program()
        self.on_resume()
        if self.description.boot_id != self._boot_id:
            self._hold_steady_again()

    def _hold_steady_again(self) -> None:
        """Repeats the steps after a reboot. Raises DeviceError where the clocks are held otherwise than before."""
        steps, before = self._hold_steady(), self.performance_mode
        now = _state(steps, "fixed_performance")
        if now != before:
            raise DeviceError(
                f"{self.address}: after its reboot the phone's fixed performance mode is {now}, was {before} before; "
                "run the same command again"
            )
        self.steps = steps
        self._begin()

    def cool_down(self) -> Iterator[Waiting]:
        """Waits until the phone is fit to be timed, and yields why as long as it is not. Raises DeviceError where it is
        not after COOL_DOWN_S, and does not cool either."""
        began_s = time.monotonic()
        rest_c = self._skin.rest_c
        while reason := self.retry(self._unfit):
            waited_s = time.monotonic() - began_s
            # A skin that cools down ends its wait itself; the rest may never end.
            if waited_s > COOL_DOWN_S and not self._skin.is_cooling:
                raise DeviceError(
                    f"{self.address}: not fit to be timed even after {COOL_DOWN_S / 60:.0f} minutes "
                    f"({reason}); put it in a cool place, out of its case, turn battery saving off, and run the same "
                    "command again"
                )
            yield Waiting(f"cooling: {reason}", waited_s, None if self._skin.is_cooling else COOL_DOWN_S)
            time.sleep(POLL_S)
        if self._skin.rest_c not in (None, rest_c):
            self.link.report(
                f"{self.address}: its skin stays at {self._skin.rest_c:.1f} degC even at rest, so it is "
                "measured warm; in a cooler place, out of its case, times vary less"
            )

    def _unfit(self) -> str | None:
        """Reason to leave the phone alone for now, or None. Each reading renews the claim on it."""
        self.workspace.claim()
        conditions = self._read_conditions()
        if conditions.reboot_reason(self.start):
            self.link.check()
            self._resume()
            conditions = self._read_conditions()
        hot = conditions.hot_reason(self.start, self.max_thermal_status, self.cores)
        # As long as Android itself calls it hot, its skin does not come to rest.
        is_warmth_fine = hot or self.is_sustained
        warm = self._skin.reason(None if is_warmth_fine else conditions.number("skin_c"), time.monotonic())
        if not (hot or warm or self._is_settled):
            # One that was plugged in hot may have been capped then: the first fit reading is the measure.
            self.start, self._is_settled = conditions, True
        return hot or warm


def _state(steps: Iterable[steady.StepOutcome], name: str) -> str:
    """State of a step: held, refused or unavailable."""
    return next((outcome.state for outcome in steps if outcome.step == name), "unavailable")
