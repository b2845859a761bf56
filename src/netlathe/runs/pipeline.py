"""`netlathe search`: from a goal to a finished run's folder, for one target or several, through five phases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, overload

from netlathe import pareto_front
from netlathe.archspace.spaces import SearchSpace
from netlathe.events import Listener, listener_of
from netlathe.outputs import check_run_folder
from netlathe.pricing import Unknown
from netlathe.runs.chosen import ChoosePhase, Chosen
from netlathe.runs.exported import ExportPhase
from netlathe.runs.files import CHECKPOINT, CHOICE, COMPARISONS, EXPORTED, FOUND, SEARCH, TRAINED, TRAINING_CHECKPOINT
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.logs import check_tensorboard
from netlathe.runs.migration import migrate
from netlathe.runs.report import CurveReport, RunReport
from netlathe.runs.reported import ReportPhase, write_hardware
from netlathe.runs.searched import SearchPhase, WarmSearcher, WarmUp
from netlathe.runs.settings import Recipe, RunSettings, Score, load_inputs, name_of
from netlathe.runs.trained import TrainPhase
from netlathe.targets import Limit, Target, check_curve, folder_name, make_goal

if TYPE_CHECKING:
    from netlathe.search import SearchConfig
    from netlathe.training import Compute, ImageData, TrainConfig
    from netlathe.training.sources import Source

_OF_TRAINING = (TRAINED, TRAINING_CHECKPOINT, EXPORTED)
_OF_SEARCH = (CHECKPOINT, SEARCH, CHOICE, COMPARISONS, FOUND, *_OF_TRAINING)


class SearchOptions(TypedDict, total=False):
    """Options of `search`, by its parameters' names."""

    limits: Sequence[Limit]
    device: str | None
    profile: str | Path | None
    benchmark_binary: str | Path | None
    config: SearchConfig | None
    training: TrainConfig | Recipe | None
    score: Score | None
    compute: Compute | None
    update: Literal["gradient", "reinforce"]
    train_from: Literal["scratch", "supernet"]
    resolution: int | None
    width: float | None
    limit_images: int | None
    unknown: Unknown
    tensorboard: bool
    restart: bool
    restart_training: bool
    seed: int
    progress: bool | Listener


@overload
def search(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    targets_ms: None = None,
    **options: Unpack[SearchOptions],
) -> RunReport: ...


@overload
def search(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    targets_ms: Sequence[float],
    **options: Unpack[SearchOptions],
) -> CurveReport: ...


def search(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    targets_ms: Sequence[float] | None = None,
    limits: Sequence[Limit] = (),
    device: str | None = None,
    profile: str | Path | None = None,
    benchmark_binary: str | Path | None = None,
    config: SearchConfig | None = None,
    training: TrainConfig | Recipe | None = None,
    score: Score | None = None,
    compute: Compute | None = None,
    update: Literal["gradient", "reinforce"] = "gradient",
    train_from: Literal["scratch", "supernet"] = "scratch",
    resolution: int | None = None,
    width: float | None = None,
    limit_images: int | None = None,
    unknown: Unknown = "refuse",
    tensorboard: bool = False,
    restart: bool = False,
    restart_training: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> RunReport | CurveReport:
    """Searches the network that classifies best within a latency target; trains it, exports it, reports.

    `space` is a preset's name (at `resolution` and `width`), a space's file, or a SearchSpace, whose blocks may be of
    any class with a name, shapes and a graph; `data` what netlathe.training.load_images takes, or an ImageData. With
    several targets, all are met at once; the first one's `device` is the judge where it is at hand, as profile takes
    it: networks are repaired until the time measured there is within the target, with `profile` at the speed that it
    had when that was begun. Otherwise the upper end of the 90 % interval is. With `targets_ms`, each of these takes the
    place of the first target's ms in a search of its own; all begin from one warm-up, and end in a curve.

    `config` and `training` are the settings of the search and of the training, by default with `seed`. `training` may
    be a recipe of your own, called as recipe(module, data, compute) and returning the trained module; with a parameter
    called `checkpointer`, it may save and continue. `score`, called with an Architecture, says how good a network is,
    the higher the better, in any unit: the `config.finalists` networks at the end of the search are compared by it
    instead of by their loss on validation images. Both are a function with a name, or a frozen dataclass with __call__.
    They are told from others by their names, and dataclasses by their fields, too, not by their code: after a change of
    it, use `restart_training`, or another name of a score, which only chooses again.

    `output` is the run's folder: the same call continues what is there, and reads what is finished; one of other
    settings is refused, unless `restart` begins anew, or `restart_training` trains what was found anew.

    Raises OutputError for a folder that must not be written into, NetlatheError for one that another process works in,
    TargetError where no network meets the targets,
    FormatError for files that cannot be read and for another run's folder, DataError for images that do not fit,
    NetlatheError for a recipe or score that cannot be told from another, TrainingError where the loss diverges,
    DeviceError for a device that cannot be opened.
    """
    from netlathe.search import SearchConfig
    from netlathe.training import Compute, TrainConfig

    for own in (training, score):
        if own is not None and not isinstance(own, TrainConfig):
            name_of(own)
    targets = [target] if isinstance(target, Target) else list(target)
    if tensorboard:
        check_tensorboard()
    if targets_ms is not None:
        check_curve(targets_ms)
    files = [str(one) for one in (space, profile, benchmark_binary) if isinstance(one, str | Path)]
    files += [one.file for one in targets if one.file] + [limit.name.rpartition(":")[0] for limit in limits]
    folder, images = Path(output), str(data) if isinstance(data, str | Path) else None
    below = [folder_name(ms) for ms in targets_ms or ()]
    check_run_folder(folder, [one for one in files if one], images, below)
    goal = make_goal(targets, limits, unknown=unknown)
    at_hand = DeviceAtHand(
        device, Path(profile) if profile else None, Path(benchmark_binary) if benchmark_binary else None, seed
    ) if device else None  # fmt: skip
    config = config or SearchConfig(seed=seed)
    training = TrainConfig(seed=seed) if training is None else training
    place = Workplace(RunFolder(folder), compute or Compute(), listener_of(progress), tensorboard)
    with held([folder, *(folder / name for name in below)]), place.compute.threaded():
        place.listener.warn(place.compute.doubts())
        chosen, loaded = load_inputs(space, data, resolution=resolution, width=width, limit=limit_images, seed=seed)
        settings = RunSettings(
            goal.narrowed(chosen), loaded, goal, config, training, update, train_from, at_hand, score
        )
        return run(settings, place, targets_ms, restart=restart, restart_training=restart_training)


@contextmanager
def held(folders: Iterable[Path]) -> Iterator[None]:
    """Context in which no other process works in any of these run folders. Raises NetlatheError where one does."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(RunFolder(folder).held())
        yield


def run(
    settings: RunSettings,
    place: Workplace,
    targets_ms: Sequence[float] | None = None,
    *,
    restart: bool = False,
    restart_training: bool = False,
) -> RunReport | CurveReport:
    """The run of these settings, or, for several limits of the main target, one for each, and tells the listener."""
    announce(settings, place.listener, targets_ms or ())
    if settings.device:  # what is missing there should show before hours of work
        with settings.device.open(settings.goal.main, place.listener):
            pass
    runs = {place.path / folder_name(ms): settings.at(ms) for ms in targets_ms or ()} or {place.path: settings}
    if restart:
        for folder in (place.path, *runs):
            place.at(folder).remove(_OF_SEARCH)
    elif restart_training:
        forget_training(runs, place)
    report = run_phases(settings, place) if targets_ms is None else run_curve(settings, place, runs)
    reports = report.runs if isinstance(report, CurveReport) else (report,)
    if len(settings.goal.targets) > 1:
        write_hardware(reports, place.path)
    place.listener.report(report)
    return report


def run_phases(
    settings: RunSettings, place: Workplace, warm: WarmSearcher | None = None, chosen: list[Chosen] | None = None
) -> RunReport:
    """One run, from wherever its folder stands to its report. `chosen` are the choices for smaller targets, to which
    this one's is added. Raises FormatError where the folder holds another run,
    NetlatheError where the folder was moved or deleted meanwhile."""
    from netlathe.search.costs import idle_limits

    with place.folder.watched():
        constraints = settings.goal.constraints(settings.space)
        place.listener.warn(idle_limits(constraints))
        searching = SearchPhase(settings, place, constraints, warm)
        migrate(place, searching.inputs)
        searched = searching.output()
        smaller = [] if chosen is None else chosen
        choosing = ChoosePhase(settings, place, searching.inputs, constraints, searched, smaller)
        found = choosing.output()
        smaller.append(found)
        training = TrainPhase(settings, place, searching.inputs, searched, found)
        trained = training.output()
        exported = ExportPhase(settings, place, training.inputs, trained).output()
        whole = {**training.inputs, **choosing.inputs}
        return ReportPhase(settings, place, whole, searched, found, trained, exported).output()


def run_curve(settings: RunSettings, place: Workplace, runs: dict[Path, RunSettings]) -> CurveReport:
    """One warm supernet, then a run for each limit in a folder of its own, by rising limits, as what is found for one
    is offered to the next; last the curve."""
    chosen: list[Chosen] = []
    for one in runs.values():
        constraints = one.goal.constraints(one.space)  # what is wrong with one of them should not show after hours
    warm_up = WarmUp(one, place, constraints)
    reports = []
    for folder, one in sorted(runs.items(), key=lambda pair: pair[1].goal.main.limit_ms):
        place.listener.step(f"{one.goal.main.limit_ms:g} ms on {one.goal.main.name}")
        reports.append(run_phases(one, place.at(folder), warm_up.searcher, chosen))
    curve = pareto_front.read_points(list(runs))
    pareto_front.write_points(curve, place.path)
    return CurveReport(place.path, tuple(reports), curve)


def announce(settings: RunSettings, listener: Listener, targets_ms: Sequence[float]) -> None:
    """Tells what is about to be searched, and what it is to meet."""
    goal, space = settings.goal, settings.space
    wanted = [f"{t.limit_ms:.3g} ms on {t.model.setup_}" for t in goal.targets]
    if targets_ms:
        wanted[0] = f"{', '.join(f'{ms:g}' for ms in targets_ms)} ms on {goal.model.setup_}"
    wanted += [f"at most {limit.value:g} {limit.name}" for limit in goal.limits]
    if goal.memory_kib is not None:
        wanted.append(f"at most {goal.memory_kib:g} KiB of activations")
    title = f"Searching {space.size:.2g} networks of space {space.name} for {wanted[0]}"
    listener.step(title + "".join(f"\n  and {one}" for one in wanted[1:]))
    listener.warn([warning for target in goal.targets for warning in target.doubts(space)])


def forget_training(runs: dict[Path, RunSettings], place: Workplace) -> None:
    """Lets the chosen networks be trained anew. Raises FormatError, before anything is removed, where a folder holds
    another search."""
    for folder, settings in runs.items():
        SearchPhase(settings, place.at(folder), []).load()
    for folder in runs:
        place.at(folder).remove(_OF_TRAINING)
