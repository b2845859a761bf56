"""A run's checkpoints: they know how long the run has taken, and a refusal says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from netlathe.archspace.errors import FormatError
from netlathe.runs.folder import RunFolder
from netlathe.training import Checkpointer
from netlathe.training.checkpoint import ForeignCheckpointError

_SECONDS = "seconds"


@dataclass
class RunCheckpointer(Checkpointer):
    """A file in a run's folder. `remedy` is what the user can do about a file of another run, or a damaged one;
    `folder` is where it lies, watched."""

    remedy: str = ""
    folder: RunFolder | None = None
    _before_s: float = field(default=0.0, init=False, repr=False)
    _begun_s: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.begin()

    def begin(self) -> None:
        """Counts this process's seconds from now."""
        self._begun_s = self.clock()

    def seconds(self) -> float:
        """Seconds that the run has taken, over all processes: those before up to their last save."""
        return self._before_s + self.clock() - self._begun_s

    def write(self, state: Mapping[str, Any]) -> None:
        """Writes the file, with the seconds taken so far. Where the run's folder was moved, the file follows it; there,
        and where the folder was deleted, NetlatheError is raised."""
        place = self.folder.place() if self.folder else None
        self.path = (place or self.path.parent) / self.path.name
        super().write({**state, _SECONDS: self.seconds()})
        if self.folder:
            self.folder.check(f" A checkpoint of this moment was saved as {self.path}.")

    def load(self) -> dict[str, Any] | None:
        """The saved state, None when there is no file; goes on counting seconds from those saved. Raises FormatError,
        with the remedy."""
        with advised(self.remedy):
            state = super().load()
        self._before_s = state.pop(_SECONDS, 0.0) if state else 0.0
        return state

    def resume(self, load: Callable[[Mapping[str, Any]], None], state: Mapping[str, Any]) -> None:
        """Hands the state to `load`. Raises FormatError, with the remedy, where it does not fit."""
        with advised(self.remedy):
            super().resume(load, state)


@contextmanager
def advised(remedy: str) -> Iterator[None]:
    """Context in which a refusal says what the user can do about it."""
    try:
        yield
    except ForeignCheckpointError as error:
        raise ForeignCheckpointError(f"{error} ({remedy})", error.path, error.differences) from error
    except FormatError as error:
        raise FormatError(f"{error} ({remedy})") from error
