"""Everything that `netlathe search` does, from a job to a finished run's folder, for one target or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from netlathe import hardware, pareto_front
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.events import Listener, listener_of
from netlathe.job import Job, prepare
from netlathe.judging import DeviceAtHand, time_file
from netlathe.logs import check_tensorboard
from netlathe.outputs import check_run_folder
from netlathe.pricing import doubts
from netlathe.products import Product, train_and_export
from netlathe.reporting import CurveReport, RunReport, make_report
from netlathe.run import HARDWARE, REPORT, TRAINING, TRAINING_CHECKPOINT, forget_training, load_report, save_report
from netlathe.searching import Found, find_architecture, warm_searcher
from netlathe.targets import Limit, Target, make_goal

if TYPE_CHECKING:
    from netlathe.archspace.records import Measurement
    from netlathe.search import SearchConfig, Searcher
    from netlathe.training import Compute, ImageData, TrainConfig
    from netlathe.training.sources import Source

NOISE = 0.03
"""Share of a latency by which two measurements of it may differ."""


def search(
    space: str | Path | SearchSpace,
    data: Source | ImageData,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    limits: Sequence[Limit] = (),
    device: str | None = None,
    profile: str | Path | None = None,
    benchmark_binary: str | Path | None = None,
    config: SearchConfig | None = None,
    training: TrainConfig | None = None,
    compute: Compute | None = None,
    update: Literal["gradient", "reinforce"] = "gradient",
    train_from: Literal["scratch", "supernet"] = "scratch",
    limit_images: int | None = None,
    assume_unknown: bool = False,
    tensorboard: bool = False,
    restart: bool = False,
    restart_training: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> RunReport:
    """Searches the network that classifies best within a latency target; trains it, exports it, reports.

    `space` is a preset's name, a space's file, or a SearchSpace; `data` what netlathe.training.load_images takes, or an
    ImageData. With several targets, all are met at once; the first one's `device` is the judge where it is at hand, as
    profile takes it: networks are repaired until the time measured there is within the target, with `profile` at the
    speed that it had when that was begun. Otherwise the upper end of the 90 % interval is. `config` and `training` are
    the settings of the search and of the training, by default with `seed`.

    `output` is the run's folder: the same call continues what is there, and reads what is finished; one of other
    settings is refused, unless `restart` begins anew, or `restart_training` trains what was found anew.

    Raises OutputError for a folder that must not be written into, TargetError where no network meets the targets,
    FormatError for files that cannot be read and for another run's folder, DataError for images that do not fit,
    TrainingError where the loss diverges, DeviceError for a device that cannot be opened.
    """
    from netlathe.search import SearchConfig
    from netlathe.training import Compute, TrainConfig

    targets = [target] if isinstance(target, Target) else list(target)
    if tensorboard:
        check_tensorboard()
    files = [str(one) for one in (space, profile, benchmark_binary) if isinstance(one, str | Path)]
    files += [one.file for one in targets if one.file] + [limit.name.rpartition(":")[0] for limit in limits]
    folder, images = Path(output), str(data) if isinstance(data, str | Path) else None
    check_run_folder(folder, [one for one in files if one], images)
    goal = make_goal(targets, limits, assume_unknown=assume_unknown)
    chosen, loaded = prepare(space, data, resolution=None, width=None, limit=limit_images, seed=seed)
    at_hand = DeviceAtHand(
        device, Path(profile) if profile else None, Path(benchmark_binary) if benchmark_binary else None, seed
    ) if device else None  # fmt: skip
    job = Job(
        chosen, loaded, goal, folder, config or SearchConfig(seed=seed), training or TrainConfig(seed=seed),
        compute or Compute(), listener_of(progress), update, train_from, at_hand, tensorboard,
    )  # fmt: skip
    report = run(job, restart=restart, restart_training=restart_training)
    assert isinstance(report, RunReport)
    return report


def run(
    job: Job, targets_ms: Sequence[float] = (), *, restart: bool = False, restart_training: bool = False
) -> RunReport | CurveReport:
    """The whole job, for its main target's limit or for several in its place. A finished one is read; `restart` begins
    it anew, `restart_training` trains what was found anew."""
    _announce(job, targets_ms)
    check_device(job)
    if restart:
        begin_anew(job, targets_ms)
    elif restart_training:
        train_anew(job, targets_ms)
    report = search_several(job, targets_ms) if targets_ms else search_one(job)
    job.listener.report(report)
    return report


def _announce(job: Job, several: Sequence[float]) -> None:
    """What is about to be searched, for what."""
    wanted = [f"{t.limit_ms:.3g} ms on {t.model.setup_}" for t in job.goal.targets]
    if several:
        wanted[0] = f"{', '.join(f'{ms:g}' for ms in several)} ms on {job.goal.model.setup_}"
    wanted += [f"at most {limit.value:g} {limit.name}" for limit in job.goal.limits]
    if job.goal.memory_kib is not None:
        wanted.append(f"at most {job.goal.memory_kib:g} KiB of activations")
    title = f"Searching {job.space.size:.2g} networks of space {job.space.name} for {wanted[0]}"
    job.listener.step(title + "".join(f"\n  and {one}" for one in wanted[1:]))
    job.listener.warn([warning for target in job.goal.targets for warning in target.doubts(job.space)])


def search_one(job: Job) -> RunReport:
    """One target: searches, trains, exports, reports."""
    report = run_job(job)
    if len(job.goal.targets) > 1:
        compare_runs([job], job.folder)
    return report


def search_several(job: Job, targets_ms: Sequence[float]) -> CurveReport:
    """One warm supernet, then a search, a training and a report per target, each in a folder of its own; last the
    curve."""
    jobs = [job.at(ms) for ms in targets_ms]
    for one in jobs:
        one.goal.constraints(one.space)  # the last target's error should not come after hours
    warm = warm_searcher(replace(jobs[-1], folder=job.folder, is_warm_up=True))
    reports = []
    for one in jobs:
        job.listener.step(f"{one.goal.main.limit_ms:g} ms on {one.goal.main.name}")
        reports.append(run_job(one, warm))
    curve = pareto_front.read_points([one.folder for one in jobs])
    pareto_front.write_points(curve, job.folder)
    if len(job.goal.targets) > 1:
        compare_runs(jobs, job.folder)
    return CurveReport(job.folder, tuple(reports), curve)


def run_job(job: Job, warm: Callable[[], Searcher] | None = None) -> RunReport:
    """A run's folder, from wherever it stands to its report; a finished one is read. Raises FormatError where the
    folder holds another run, NetlatheError where the folder was moved or deleted meanwhile."""
    with job.held.watched():
        return _run(job, warm)


def _run(job: Job, warm: Callable[[], Searcher] | None) -> RunReport:
    kept = job.found_checkpointer().load()
    report = _finished(job, kept)
    if report is not None:
        job.listener.note(f"  Finished before, and read from {job.folder}; --restart begins anew")
        return report
    found = find_architecture(job, kept, warm)
    job.held.check()
    product = _train(job, found)
    main = job.goal.main
    unknown = doubts(main.model, found.architecture.name, found.architecture.graph(main.model.setup_.batch))
    timed = _timed(job, found, product)
    late = _above_target(job, found, timed) if timed else []
    product = replace(product, warnings=(*unknown, *product.warnings, *late))
    report = make_report(job, found, product, timed)
    job.held.check()
    save_report(job.folder, report.to_json())
    return report


def _finished(job: Job, kept: Mapping[str, Any] | None) -> RunReport | None:
    """The report of this very run, where it has come to its end. Raises FormatError for a damaged one."""
    is_whole = (job.folder / REPORT).is_file() and (job.folder / TRAINING_CHECKPOINT).is_file()
    if kept is None or not is_whole:
        return None
    report = load_report(job.folder)
    architecture = Architecture.from_json(kept["found"]["architecture"])
    return RunReport.from_json(report) if report.get("run") == job.run_description(architecture) else None


def _train(job: Job, found: Found) -> Product:
    """Begins, or goes on. Raises FormatError where the folder holds another training of this network."""
    checkpointer = job.training_checkpointer(found.architecture)
    begun = checkpointer.load()
    if begun is None:
        (job.folder / TRAINING).unlink(missing_ok=True)
    forget_training(job.folder)  # a report that stands beside a training that goes on would be an earlier one's
    first = int(begun["step"]) + 1 if begun else 1
    return train_and_export(
        found.architecture, job.data, job.folder, job.train, job.compute, job.listener,
        weights=found.weights if job.train_from == "supernet" else None, checkpointer=checkpointer,
        events_from=first if job.tensorboard else None,
    )  # fmt: skip


def _timed(job: Job, found: Found, product: Product) -> Measurement | None:
    """The exported file on the device, where there is one."""
    if job.device is None:
        return None
    form = {"float32": "tflite", "int8": "int8"}.get(job.goal.model.setup_.dtype, "")
    content = Path(product.files[form]).read_bytes() if form in product.files else None
    if job.goal.model.setup_.batch != 1:
        content = None  # exported files take one image
    return time_file(found.architecture, content, job.goal.main, job.device, job.listener)


def _above_target(job: Job, found: Found, timed: Measurement) -> list[str]:
    """Where the last word of the stopwatch is not the one by which the network was chosen."""
    limit_ms = job.goal.main.limit_ms
    excess = timed.latency_ms / limit_ms - 1
    if excess <= 0 or not found.judged.is_met:
        return []
    noise = ", which may be no more than the measurement's noise" if excess < NOISE else ""
    return [
        f"the target is missed: {found.architecture.name} now takes {timed.latency_ms:.4g} ms, {excess:.1%} above "
        f"the target{noise}; when it was chosen, it took {found.judged.timed[-1][2]:.4g} ms. Time it again on a quiet "
        "device, or lower the target by as much"
    ]


def compare_runs(jobs: Sequence[Job], folder: Path) -> hardware.HardwareTable:
    """Each found network on each target's device, also as a file of the folder."""
    models = {target.name: target.model for target in jobs[0].goal.targets}
    table = hardware.price_networks([job.folder for job in jobs], models)
    hardware.write_table(table, folder / HARDWARE)
    return table


def check_device(job: Job) -> None:
    """Opens the device once: what is missing there should show before hours of work. Raises ProfilerError or
    RecordError."""
    if job.device:
        with job.device.open(job.goal.main, job.listener):
            pass


def begin_anew(job: Job, targets_ms: Sequence[float]) -> None:
    """Forgets the checkpoints of earlier runs in the folder, and in those of its targets."""
    for one in (job, *(job.at(ms) for ms in targets_ms)):
        one.forget()


def train_anew(job: Job, targets_ms: Sequence[float]) -> None:
    """Forgets the trainings of what this job found. Raises FormatError, before it does, where it is another's."""
    jobs = [job.at(ms) for ms in targets_ms] or [job]
    for one in jobs:
        one.found_checkpointer().load()
    for one in jobs:
        one.forget_training()
