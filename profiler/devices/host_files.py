"""Model files as they are on this computer's CPU, beside the graphs of a device inside this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from netlathe.archspace.forms.model_file import FileFormat, ModelFile
from netlathe.profiler.device import Observation
from netlathe.profiler.devices.in_process import HostDevice, run_timer
from netlathe.profiler.errors import MeasurementError, UnsupportedGraphError
from netlathe.profiler.file_runtimes import OPENERS, OpenFile
from netlathe.profiler.fresh_process import start_file


class HostFiles(HostDevice):
    """A device of this computer's CPU that runs files of its runtime's own format.

    A file is started in a process of its own first: what crashes the runtime ends only that one, and the memory that it
    takes can be told from all else. Then it is loaded here, among the graphs.
    """

    file_format: FileFormat
    runtime_title: str

    def __init__(self, threads: int, batch: int, cores: Sequence[int]) -> None:
        super().__init__(threads, batch, cores)
        self._files: dict[str, tuple[ModelFile, Observation]] = {}

    def load_file(self, key: str, file: ModelFile) -> None:
        if file.format != self.file_format:
            raise UnsupportedGraphError(f"{self.runtime_title} runs .{self.file_format} files, not .{file.format} ones")
        self._files[key] = file, self._start(file)
        self._keep(key, self._opener(file), OPENERS[file.format].refusals(), "file")

    def _opener(self, file: ModelFile) -> Callable[[], Callable[[int, int], list[float]]]:
        def build() -> Callable[[int, int], list[float]]:
            opened: OpenFile = OPENERS[file.format](file, self.threads)
            opened.fill()
            return run_timer(opened.run)

        return build

    def _start(self, file: ModelFile, *, op_profile: bool = False) -> Observation:
        return start_file(
            file, self.runtime_title, threads=self.threads, cores=self.core_numbers, op_profile=op_profile
        )

    def observe(self, keys: Sequence[str], *, op_profile: bool = False) -> Mapping[str, Observation]:
        found = {key: self._files[key][1] for key in keys}
        for key in keys if op_profile else ():
            with suppress(MeasurementError, UnsupportedGraphError):  # there is no table then
                found[key] = self._start(self._files[key][0], op_profile=True)
        return found
