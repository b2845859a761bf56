"""A phase of a run: work whose output stays in the run's folder, beside the inputs that it follows from."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from netlathe.archspace.errors import FormatError, NetlatheError, SpaceError
from netlathe.archspace.jsonfile import json_digest, read_json, write_json
from netlathe.runs.checkpoints import RunCheckpointer, advised
from netlathe.runs.files import PAGE, REPORT
from netlathe.runs.folder import Workplace
from netlathe.training.checkpoint import ForeignCheckpointError, check_run

SCHEMA_VERSION = 1
_RUN, _NEEDS = "run", "needs"
"""Keys of a phase's inputs, and of the files that it needs, in its record."""

_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, SpaceError)
"""Errors of reading what is no record."""

Output = TypeVar("Output")


class Phase(ABC, Generic[Output]):
    """One phase of a run. It is stale, and its work is done, where its record is missing or is of inputs with another
    digest; otherwise its output is read from the record.

    A record is a JSON file that holds the inputs and the output; what the output needs beside it lies in the files of
    `needs`. Files of the phase are written before its record, and removed after it.
    """

    record: ClassVar[str]
    """Name of the record in the run's folder."""
    kind: ClassVar[str]
    """Kind of its JSON schema."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Files without which the record counts for nothing, as far as there were such when it was saved."""
    remedy: ClassVar[str] = "--restart does that for {folder}"
    """Remedy for a record of another run, or a damaged one."""
    is_shared: ClassVar[bool] = False
    """Whether several processes do its work together; otherwise the leader does it, and tells the others its output.
    Records and files are the leader's alone."""

    def __init__(self, place: Workplace, inputs: Mapping[str, Any]) -> None:
        self.place = place
        self.inputs: dict[str, Any] = json.loads(json.dumps(inputs))  # as a record gives them back

    @abstractmethod
    def work(self) -> Output:
        """The phase's work, from its inputs to its output; goes on where it was interrupted."""

    @abstractmethod
    def write(self, output: Output) -> dict[str, Any]:
        """Writes the output's files, and returns what the record holds beside the inputs."""

    @abstractmethod
    def read(self, content: Mapping[str, Any]) -> Output:
        """The output of a record with these contents. Raises what Python does for what is none."""

    @abstractmethod
    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Whether a record of other inputs, which differ in these settings, makes way; otherwise it is refused."""

    @cached_property
    def digest(self) -> str:
        """Digest of the inputs."""
        return json_digest(self.inputs)

    def output(self) -> Output:
        """The output: read where it is fresh, worked out and saved where it is stale. Raises FormatError for a damaged
        record, and for another run's whose work is not to be lost."""
        self._check_alike()
        name, listener = f"{self.place.series}{self.kind}", self.place.listener
        kept = self.load()
        if kept is not None:
            listener.phase(name, is_done=True)
            return kept
        listener.phase(name, is_done=False)
        output = self.work() if self.is_shared else self.place.ranks.told(self.work)
        self.place.ranks.told(lambda: self._keep(output))
        listener.phase(name, is_done=True)
        return output

    def _keep(self, output: Output) -> None:
        self.place.folder.check()
        self.save(output)

    def _check_alike(self) -> None:
        """Raises NetlatheError where this process was given other inputs than the one that leads."""
        theirs = self.place.ranks.told(lambda: self.inputs)
        try:
            check_run(self.place.path, self.inputs, theirs)
        except ForeignCheckpointError as error:
            raise NetlatheError(
                f"process {self.place.ranks.index} of this run was given other inputs than the one that leads it "
                f"({', '.join(error.differences[:6])}); start all with the same command, files and versions"
            ) from error

    def load(self) -> Output | None:
        """The saved output, None where the phase is stale. Raises FormatError as `output` does."""
        with self._reading():
            content = self.place.ranks.told(self._fresh)
            return None if content is None else self.read(content)

    def _fresh(self) -> dict[str, Any] | None:
        """The record's content, None where the phase is stale."""
        path = self.place.path / self.record
        if not path.is_file():
            return None
        content = read_json(path, self.kind, SCHEMA_VERSION)
        needed = content.get(_NEEDS, ())
        if not {*needed} <= {*self.needs}:
            raise ValueError("it names files that this phase has not")
        if not all((self.place.path / name).is_file() for name in needed):
            return None
        if json_digest(content.get(_RUN)) != self.digest:
            self._check_replaced(path, content.get(_RUN))
            return None
        return content

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Context in which what is wrong with the record is told with the remedy."""
        with advised(self._remedy):
            try:
                yield
            except _DAMAGE as error:
                path = self.place.path / self.record
                raise FormatError(f"{path}: not a whole record of a run ({error!s:.200}); remove it") from error

    def save(self, output: Output) -> None:
        """Writes the output's files, then the record. Until the run's report is written anew, there is none."""
        folder = self.place.path
        self.place.remove((REPORT, PAGE, self.record))
        content = {_RUN: self.inputs, **self.write(output)}
        if self.needs:
            content[_NEEDS] = [name for name in self.needs if (folder / name).is_file()]
        write_json(folder / self.record, self.kind, SCHEMA_VERSION, content)

    def checkpointer(self, name: str) -> RunCheckpointer:
        """Checkpoints of the work, in a file of the folder that knows the inputs."""
        return RunCheckpointer(
            self.place.path / name, self.inputs, self.place.every_s, remedy=self._remedy, folder=self.place.folder,
            ranks=self.place.ranks,
        )  # fmt: skip

    def _check_replaced(self, path: Path, run: Any) -> None:
        try:
            check_run(path, self.inputs, run, "record")
        except ForeignCheckpointError as error:
            if not self.is_replaced(error.differences):
                raise

    @property
    def _remedy(self) -> str:
        return f"{self.remedy.format(folder=self.place.path)}; or name another --output"
