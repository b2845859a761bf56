"""`netlathe search`: from a goal to a finished run's folder, for one target or several, through five phases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, overload

from netlathe import pareto_front
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.spaces import SearchSpace
from netlathe.arguments import Common, search_goal
from netlathe.events import Listener, listener_of
from netlathe.pricing import Unknown
from netlathe.progress_files import ProgressFile
from netlathe.report.writing import make_page
from netlathe.runs.baselines import BaselinePhase, BaselineSettings, baseline_networks, write_baselines
from netlathe.runs.chosen import ChoosePhase, Chosen
from netlathe.runs.exported import ExportPhase
from netlathe.runs.files import (
    BASELINES,
    CHECKPOINT,
    CHOICE,
    COMPARISONS,
    EXPORTED,
    FOUND,
    LOOKS,
    PAGE,
    PROGRESS,
    SEARCH,
    STUDY,
    TRAINED,
    TRAINING_CHECKPOINT,
)  # fmt: skip
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.logs import check_tensorboard
from netlathe.runs.looked import LookPhase, look_for_all
from netlathe.runs.migration import migrate
from netlathe.runs.plans import search_plan
from netlathe.runs.report import CurveReport, RunReport
from netlathe.runs.reported import ReportPhase, write_hardware
from netlathe.runs.scores import warm_searcher
from netlathe.runs.searched import SearchPhase, WarmSearcher, WarmUp
from netlathe.runs.settings import (
    BINARIZED,
    LookSettings,
    OwnScore,
    Recipe,
    RunSettings,
    Score,
    load_inputs,
    make_budgets,
    name_of,
    trained_by,
)
from netlathe.runs.trained import TrainPhase
from netlathe.targets import Limit, Target, folder_name

if TYPE_CHECKING:
    from netlathe.search import SearchConfig
    from netlathe.search.costs import Constraint
    from netlathe.training import Compute, ImageData, TrainConfig
    from netlathe.training.sources import Source

_OF_TRAINING = (TRAINED, TRAINING_CHECKPOINT, EXPORTED, BASELINES)
_OF_SEARCH = (CHECKPOINT, STUDY, LOOKS, SEARCH, CHOICE, COMPARISONS, FOUND, *_OF_TRAINING)


class SearchOptions(TypedDict, total=False):
    """Options of `search`, by its parameters' names."""

    limits: Sequence[Limit]
    device: str | None
    profile: str | Path | None
    benchmark_binary: str | Path | None
    config: SearchConfig | None
    training: TrainConfig | Recipe | None
    recipe: str | None
    score: OwnScore | Score | Sequence[OwnScore | Score] | None
    compute: Compute | None
    update: Literal["gradient", "reinforce"]
    strategy: str
    looks: int | Sequence[int]
    look_epochs: int | Sequence[int]
    storage: str | Path | None
    train_from: Literal["scratch", "supernet"]
    baselines: Sequence[float]
    resolution: int | None
    width: float | None
    limit_images: int | None
    skip_unreadable: int
    unknown: Unknown
    tensorboard: bool
    page: bool
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
    recipe: str | None = None,
    score: OwnScore | Score | Sequence[OwnScore | Score] | None = None,
    compute: Compute | None = None,
    update: Literal["gradient", "reinforce"] = "gradient",
    strategy: str = BINARIZED,
    looks: int | Sequence[int] = 100,
    look_epochs: int | Sequence[int] = 10,
    storage: str | Path | None = None,
    train_from: Literal["scratch", "supernet"] = "scratch",
    baselines: Sequence[float] = (),
    resolution: int | None = None,
    width: float | None = None,
    limit_images: int | None = None,
    skip_unreadable: int = 0,
    unknown: Unknown = "refuse",
    tensorboard: bool = False,
    page: bool = True,
    restart: bool = False,
    restart_training: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> RunReport | CurveReport:
    """Searches the network that classifies best within a latency target; trains it, exports it, reports.

    `space` is a preset's name (at `resolution` and `width`), a space's file, or a SearchSpace, whose blocks may be of
    any class with a name, shapes and a graph; `data` what netlathe.training.load_images takes, at most `limit_images`
    of each split and without up to `skip_unreadable` that cannot be read, or an ImageData. With several targets, all
    are met at once; the first one's `device` is the judge where it is at hand, as profile takes
    it: networks are repaired until the time measured there is within the target, with `profile` at the speed that it
    had when that was begun. Otherwise the upper end of the 90 % interval is. With `targets_ms`, each of these takes the
    place of the first target's ms in a search of its own; all begin from one warm-up, and end in a curve. `baselines`
    are widths, such as (0.5, 0.75, 1), at which the space's reference network is trained and timed as the found one is:
    the page report.html, which every run leaves in its folder unless `page` is false, holds them against each other.

    `config` and `training` are the settings of the search and of the training, by default with `seed`. `recipe` is the
    name of a published training recipe (`netlathe.training.RECIPES`) in place of a `training`. `training` may
    be a recipe of your own, called as recipe(module, data, compute) and returning the trained module; with a parameter
    called `checkpointer`, it may save and continue. `score`, called with an Architecture, says how good a network is,
    the higher the better, in any unit: the `config.finalists` networks at the end of the search are compared by it
    instead of by their loss on validation images. Both are a function with a name, or a frozen dataclass with __call__.
    They are told from others by their names, and dataclasses by their fields, too, not by their code: after a change of
    it, use `restart_training`, or another name of a score, which only chooses again.

    `strategy` is "binarized", a supernet whose paths learn, or one that looks at whole networks within the limits, one
    by one: "ego", "uct", "evolution", "local", "thompson", "actor-critic" (extra `rl`), "tpe", "nsga2" or "random".
    Then `looks` of them are looked at: each is trained for `look_epochs` epochs, as `training` says, for its accuracy
    on the validation images; or it is given to `score`, which may have a parameter `budget` for these epochs, and whose
    failures and NaN are networks without a score. `score` "inherit" is the accuracy by the weights of a supernet, which
    is trained for the first two phases of `config`; "train" the default. Lists of scores, `looks` or `look_epochs` are
    several budgets, the cheapest first: networks are looked at by one budget after another, "ego" learns how far the
    cheaper ones are to be trusted, other strategies begin with their best networks, and the last one decides. With
    `targets_ms`, what is seen for one target is known to all others. Look-ups are kept in the folder, or in `storage`,
    a file or the URL of an Optuna storage, on which further processes work by `join_search`. More `looks` go on with
    those that there are.

    `output` is the run's folder: the same call continues what is there, and reads what is finished; one of other
    settings is refused, unless `restart` begins anew, or `restart_training` trains what was found anew.

    Raises OutputError for a folder that must not be written into, NetlatheError for one that another process works in,
    TargetError where no network meets the targets,
    FormatError for files that cannot be read and for another run's folder, DataError for images that do not fit,
    NetlatheError for a recipe or score that cannot be told from another, TrainingError where the loss diverges,
    DeviceError for a device that cannot be opened, SearchError where every look-up fails, or the storage holds another
    study.
    """
    options = SearchOptions(
        limits=limits, device=device, profile=profile, benchmark_binary=benchmark_binary, config=config,
        training=training, recipe=recipe, score=score, compute=compute, update=update, strategy=strategy, looks=looks,
        look_epochs=look_epochs, storage=storage, train_from=train_from, baselines=baselines, resolution=resolution,
        width=width, limit_images=limit_images, skip_unreadable=skip_unreadable, unknown=unknown,
        tensorboard=tensorboard, seed=seed, progress=progress,
    )  # fmt: skip
    with prepared(space, data, target, output, targets_ms, options) as (settings, place):
        return run(
            settings, place, targets_ms, page=page, restart=restart, restart_training=restart_training
        )  # fmt: skip


def join_search(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    targets_ms: Sequence[float] | None = None,
    **options: Unpack[SearchOptions],
) -> int:
    """Looks at networks of a search by a black-box strategy that other processes work on, too, until its budget is
    used; returns how many this process has looked at.

    Takes what `search` takes, and must be given the same: the study is in its `output` folder, or in its `storage`,
    where processes on several machines meet. A process that is killed loses the look-up that it was at, which another
    one makes. Raises what search raises, and NetlatheError for a strategy that looks at no networks one by one.
    """
    with prepared(space, data, target, output, targets_ms, options, alone=False) as (settings, place):
        if settings.looking is None:
            raise NetlatheError(
                "the path-binarized search is one process's work; name a strategy whose look-ups can be shared, such "
                "as ego"
            )
        place.folder.make()
        return look_for_all(runs_of(settings, place, targets_ms), place)


@contextmanager
def prepared(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    target: Target | Sequence[Target],
    output: str | Path,
    targets_ms: Sequence[float] | None,
    options: SearchOptions,
    *,
    alone: bool = True,
) -> Iterator[tuple[RunSettings, Workplace]]:
    """Context with the settings and the place of a run, its inputs read and checked, in which, if `alone`, no other
    process works in its folder. Raises what search does before it begins."""
    from netlathe.search import SearchConfig
    from netlathe.training import Compute
    from netlathe.training.recipes import make_training

    training, score, tensorboard = options.get("training"), options.get("score"), options.get("tensorboard", False)
    seed, device = options.get("seed", 0), options.get("device")
    profile, benchmark_binary = options.get("profile"), options.get("benchmark_binary")
    looking, train_from = _looking(options), options.get("train_from", "scratch")
    scores = [one.score for one in looking.budgets] if looking else [score]
    training = trained_by(training, options.get("recipe"), lambda name: make_training(name, seed=seed))
    for own in (training, *scores):
        if callable(own):
            name_of(own)
    score = scores[0] if len(scores) == 1 and callable(scores[0]) else None
    if tensorboard:
        check_tensorboard()
    folder, below = Path(output), [folder_name(ms) for ms in targets_ms or ()]
    compute = options.get("compute") or Compute()
    leads = compute.ranks.leads
    common = Common(
        target=target, output=output, data=data, limits=options.get("limits", ()),
        unknown=options.get("unknown", "refuse"), device=device, profile=profile, benchmark_binary=benchmark_binary,
        recipe=options.get("recipe"), writes=leads,
    )  # fmt: skip
    goal = search_goal(
        common, space, targets_ms=targets_ms, strategy=options.get("strategy", BINARIZED),
        resolution=options.get("resolution"), width=options.get("width"),
    )  # fmt: skip
    at_hand = DeviceAtHand(
        device, Path(profile) if profile else None, Path(benchmark_binary) if benchmark_binary else None, seed
    ) if device else None  # fmt: skip
    config = options.get("config") or SearchConfig(seed=seed)
    listener = listener_of(options.get("progress", False)) if leads else Listener()
    with ExitStack() as stack:
        if alone and leads:
            stack.enter_context(held([folder, *(folder / name for name in below)]))
            listener = stack.enter_context(ProgressFile(listener, folder / PROGRESS, "search", folder.name))
        stack.enter_context(compute.threaded())
        place = Workplace(RunFolder(folder, is_own=leads), compute, listener, tensorboard and leads)
        listener.warn(compute.doubts())
        chosen, loaded = load_inputs(
            space, data, resolution=options.get("resolution"), width=options.get("width"),
            limit=options.get("limit_images"), seed=seed, skip_unreadable=options.get("skip_unreadable", 0),
            listener=listener,
        )  # fmt: skip
        update = options.get("update", "gradient")
        baselines = baseline_networks(
            space,
            chosen,
            options.get("baselines", ()),
            resolution=options.get("resolution"),
            width=options.get("width"),
        )
        if baselines:  # what cannot be priced should show before hours of work
            goal.main.model.predict(baselines)
        yield (
            RunSettings(
                goal.narrowed(chosen), loaded, goal, config, training, update, train_from, at_hand, score, looking,
                baselines,
            ),
            place,
        )  # fmt: skip


@contextmanager
def held(folders: Iterable[Path]) -> Iterator[None]:
    """Context in which no other process works in any of these run folders. Raises NetlatheError where one does."""
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(RunFolder(folder).held())
        yield


def _looking(options: SearchOptions) -> LookSettings | None:
    """How networks are looked at, if the strategy does so. Raises NetlatheError for options that contradict it."""
    strategy, storage, score = options.get("strategy", BINARIZED), options.get("storage"), options.get("score")
    if strategy == BINARIZED:
        if storage is not None:
            raise NetlatheError("--storage: the path-binarized search makes no look-ups that could be kept there")
        if not (score is None or callable(score)):
            raise NetlatheError(
                f"score {score!r}: the path-binarized search compares finalists by one score of your own, or by the "
                "supernet's loss; name a strategy that looks at whole networks, such as ego, or leave it out"
            )
        return None
    if options.get("train_from") == "supernet":
        raise NetlatheError(f"--train-from supernet: the strategy {strategy} has no supernet; leave the option out")
    budgets = make_budgets(score, options.get("looks", 100), options.get("look_epochs", 10))
    return LookSettings(strategy, budgets, options.get("seed", 0), None if storage is None else str(storage))


def run(
    settings: RunSettings,
    place: Workplace,
    targets_ms: Sequence[float] | None = None,
    *,
    page: bool = True,
    restart: bool = False,
    restart_training: bool = False,
) -> RunReport | CurveReport:
    """The run of these settings, or, for several limits of the main target, one for each, and tells the listener."""
    announce(settings, place.listener, targets_ms or ())
    if settings.device and place.leads:  # what is missing there should show before hours of work
        with settings.device.open(settings.goal.main, place.listener):
            pass
    runs = runs_of(settings, place, targets_ms)
    if restart:
        for folder in (place.path, *runs):
            place.at(folder).remove(_OF_SEARCH)
    elif restart_training:
        forget_training(runs, place)
    report = run_phases(settings, place) if targets_ms is None else run_curve(settings, place, runs)
    reports = report.runs if isinstance(report, CurveReport) else (report,)
    if len(settings.goal.targets) > 1 and place.leads:
        write_hardware(reports, place.path)
    place.listener.report(report)
    if page and place.leads:
        _make_pages(runs, place, report)
    return report


def _make_pages(runs: Iterable[Path], place: Workplace, report: RunReport | CurveReport) -> None:
    """The page of each run that has none, and of all targets together."""
    for folder in runs:
        if not (folder / PAGE).is_file():
            make_page(folder, place.listener)
    if isinstance(report, CurveReport):
        make_page(place.path, place.listener)


def runs_of(settings: RunSettings, place: Workplace, targets_ms: Sequence[float] | None) -> dict[Path, RunSettings]:
    """Folders with their settings, by rising limits: one for each limit of the main target, or the one of all."""
    if targets_ms is None:
        return {place.path: settings}
    return {place.path / folder_name(ms): settings.at(ms) for ms in sorted(targets_ms)}


def run_phases(
    settings: RunSettings, place: Workplace, warm: WarmSearcher | None = None, chosen: list[Chosen] | None = None,
    shared: Workplace | None = None,
) -> RunReport:  # fmt: skip
    """One run, from wherever its folder stands to its report. `chosen` are the choices for smaller targets, to which
    this one's is added; `shared` is where baselines are trained that several runs have. Raises FormatError where the
    folder holds another run, NetlatheError where the folder was moved or deleted meanwhile."""
    from netlathe.search.costs import idle_limits

    with place.folder.watched():
        constraints = settings.goal.constraints(settings.space)
        place.listener.warn(idle_limits(constraints))
        searching = search_phase(settings, place, constraints, warm)
        if place.leads:
            migrate(place, searching.inputs)
        place.listener.plan(search_plan(settings, place.series, is_warm=warm is not None))
        searched = searching.output()
        smaller = [] if chosen is None else chosen
        choosing = ChoosePhase(settings, place, searching.inputs, constraints, searched, smaller)
        found = choosing.output()
        smaller.append(found)
        place.listener.plan(search_plan(settings, place.series, is_warm=warm is not None, found=found.architecture))
        training = TrainPhase(settings, place, searching.lasting, searched, found)
        trained = training.output()
        exported = ExportPhase(settings, place, training.inputs, trained).output()
        whole = {**training.inputs, **choosing.inputs}
        if settings.baselines:
            compared = BaselinePhase(_baselines_of(settings), shared or place).output()
            if shared and place.leads:
                write_baselines(compared, place.path)
        return ReportPhase(settings, place, whole, searched, found, trained, exported).output()


def _baselines_of(settings: RunSettings) -> BaselineSettings:
    return BaselineSettings(settings.baselines, settings.data, settings.goal, settings.training, settings.device)


def search_phase(
    settings: RunSettings, place: Workplace, constraints: list[Constraint], warm: WarmSearcher | None = None
) -> SearchPhase | LookPhase:
    """The first phase, by the strategy."""
    if settings.looking is not None:
        return LookPhase(settings, place, constraints, warm)
    return SearchPhase(settings, place, constraints, warm)


def run_curve(settings: RunSettings, place: Workplace, runs: dict[Path, RunSettings]) -> CurveReport:
    """One warm supernet, where it is needed, then a run for each limit in a folder of its own, by rising limits, as
    what is found for one is offered to the next; last the curve. Whole networks are looked at for all limits first."""
    chosen: list[Chosen] = []
    for one in runs.values():
        constraints = one.goal.constraints(one.space)  # what is wrong with one of them should not show after hours
    if settings.looking:
        warm = warm_searcher(one, place, constraints)
        look_for_all(runs, place)
    else:
        warm = WarmUp(one, place, constraints).searcher
    for folder, one in runs.items():
        place.listener.plan(search_plan(one, place.at(folder).series, is_warm=True))
    reports = []
    for folder, one in runs.items():
        place.listener.step(f"{one.goal.main.limit_ms:g} ms on {one.goal.main.name}")
        reports.append(run_phases(one, place.at(folder), warm, chosen, place))
    curve = place.ranks.told(lambda: pareto_front.read_points(list(runs)))
    if place.leads:
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
        search_phase(settings, place.at(folder), []).load()
    for folder in runs:
        place.at(folder).remove(_OF_TRAINING)
