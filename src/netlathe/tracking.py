"""Trackers: what a search, a compression or a training tells, kept by MLflow or Weights & Biases as well."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from netlathe.archspace.errors import NetlatheError, did_you_mean
from netlathe.events import Listener, Relay, listener_of

PROJECT = "netlathe"
"""Name of the experiment or project by default."""
MOST_CHARACTERS = 500
"""Longest setting that is kept; longer ones are tables of measurements and the like."""
MOST_ERRORS = 5
"""Errors of a tracker in sequence after which it is left alone."""


class Tracker(Relay):
    """Listener that hands everything on to another one, and keeps numbers and the report with a tracking service.

    A context: its end closes the service's run as finished, failed, or stopped. The run of a folder that was cut off is
    continued. What goes wrong with the service while the work goes on is told once in a warning, and stops nothing.
    Subclasses say how to begin, log, and end.
    """

    package = ""
    """Module that is imported, and name of the extra that installs it."""

    def __init__(self, folder: str | Path, progress: bool | Listener = False, *, project: str = PROJECT) -> None:
        """`folder` is the run's, which names it; `progress` is what else hears of it. Raises NetlatheError where the
        package is not installed, or the service does not answer."""
        super().__init__(listener_of(progress))
        self.name = str(folder)
        self.identity = hashlib.sha256(str(Path(folder).resolve()).encode()).hexdigest()[:16]
        self._errors = 0
        try:
            self._begin(import_module(self.package), project)
        except ImportError as error:
            raise NetlatheError(
                f"tracking by {self.package} needs that package ({error}); pip install 'netlathe[{self.package}]'"
            ) from error
        except Exception as error:  # a service has errors of its own, of the network, of its settings
            raise NetlatheError(f"{self.package} cannot begin a run: {_words(error)}") from error

    def _begin(self, package: Any, project: str) -> None:
        """Begins the folder's run, or goes on with it."""
        raise NotImplementedError

    def _log(self, name: str, value: float, step: int) -> None:
        """Keeps a number at a step."""
        raise NotImplementedError

    def _conclude(self, settings: Mapping[str, str], numbers: Mapping[str, float]) -> None:
        """Keeps the settings of the run, and the numbers that it came to."""
        raise NotImplementedError

    def _end(self, outcome: str) -> None:
        """Ends the run; outcome: 'finished', 'failed', 'stopped'."""
        raise NotImplementedError

    def scalar(self, name: str, value: float, step: int) -> None:
        self.inner.scalar(name, value, step)
        if math.isfinite(value):
            self._guarded(self._log, name, value, step)

    def report(self, report: object) -> None:
        self.inner.report(report)
        told: Callable[[], Mapping[str, Any]] | None = getattr(report, "to_json", None)
        if told:
            found = dict(_flat(told()))
            settings = {name: str(value) for name, value in found.items() if not _is_number(value)}
            self._guarded(self._conclude, settings, {k: float(v) for k, v in found.items() if _is_number(v)})

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        if self._errors >= MOST_ERRORS:
            return
        try:
            call(*arguments)
            self._errors = 0
        except Exception as error:
            self._errors += 1
            if self._errors == MOST_ERRORS or call != self._log:
                self.inner.warn([f"{self.package} did not take what it was told: {_words(error)}"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)
        self._guarded(self._end, "stopped" if stopped else "failed" if kind else "finished")


class MLflow(Tracker):
    """Tracker by MLflow, at the place that MLFLOW_TRACKING_URI names; `project` is the experiment."""

    package = "mlflow"

    def _begin(self, package: Any, project: str) -> None:
        self._client = package.tracking.MlflowClient()
        known = self._client.get_experiment_by_name(project)
        experiment = known.experiment_id if known else self._client.create_experiment(project)
        tag = f"{PROJECT}.folder"
        earlier = self._client.search_runs([experiment], f"tags.`{tag}` = '{self.identity}'", max_results=1)
        run = earlier[0] if earlier else self._client.create_run(
            experiment, run_name=self.name, tags={tag: self.identity}
        )  # fmt: skip
        self._run = run.info.run_id
        self._client.set_terminated(self._run, "RUNNING")

    def _log(self, name: str, value: float, step: int) -> None:
        self._client.log_metric(self._run, _mlflow_name(name), value, step=step, synchronous=False)

    def _conclude(self, settings: Mapping[str, str], numbers: Mapping[str, float]) -> None:
        for name, value in settings.items():  # as tags, since parameters cannot be set again where a run goes on
            self._client.set_tag(self._run, _mlflow_name(name), value)
        for name, number in numbers.items():
            self._client.log_metric(self._run, _mlflow_name(name), number)

    def _end(self, outcome: str) -> None:
        status = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
        self._client.set_terminated(self._run, status[outcome])


class WeightsAndBiases(Tracker):
    """Tracker by Weights & Biases, in the mode that WANDB_MODE says, as `offline`; `project` is theirs."""

    package = "wandb"

    def _begin(self, package: Any, project: str) -> None:
        quiet = package.Settings(silent=True, console="off")  # the terminal is the other listener's
        self._run = package.init(project=project, name=self.name, id=self.identity, resume="allow", settings=quiet)
        self._series: set[str] = set()

    def _log(self, name: str, value: float, step: int) -> None:
        # Steps of a search and of a training are counted each for itself, which the service's own step cannot be.
        series = name.rpartition("/")[0] or name
        if series not in self._series:
            self._run.define_metric(f"{series}/*", step_metric=f"{series}/step")
            self._series.add(series)
        self._run.log({name: value, f"{series}/step": step})

    def _conclude(self, settings: Mapping[str, str], numbers: Mapping[str, float]) -> None:
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.summary.update(dict(numbers))

    def _end(self, outcome: str) -> None:
        self._run.finish(exit_code={"finished": 0, "failed": 1, "stopped": 130}[outcome])


TRACKERS: Mapping[str, type[Tracker]] = {one.package: one for one in (MLflow, WeightsAndBiases)}
"""By the names that --track takes."""


def check_tracker(name: str) -> None:
    """Raises NetlatheError for a name that is no tracker's."""
    if name not in TRACKERS:
        meant = did_you_mean(name, TRACKERS)
        raise NetlatheError(f"--track {name!r:.40}: there is no such tracker{meant}; there are {', '.join(TRACKERS)}")


@contextmanager
def tracked(by: str | None, folder: str | Path, progress: Listener) -> Iterator[Listener]:
    """Context with a listener that also tells the tracker of that name; with none, the listener itself. Raises as
    Tracker does, and NetlatheError for an unknown name."""
    if by is None:
        yield progress
        return
    check_tracker(by)
    with TRACKERS[by](folder, progress) as tracker:
        yield tracker


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Single values of a report's JSON, by the path to each; lists are left out."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif _is_number(value) or (isinstance(value, str | bool) and len(str(value)) <= MOST_CHARACTERS):
            yield f"{prefix}{name}", value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mlflow_name(name: str) -> str:
    """The name in the letters that MLflow takes; where it is a path, one that leads nowhere else."""
    parts = [re.sub(r"[^\w\-. :]", "_", part) for part in name.split("/")]
    return "/".join(part if part.strip(".") else "_" for part in parts)


def _words(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).splitlines() or [""])[0].strip()[:200] or type(error).__name__
