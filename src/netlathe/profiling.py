"""Profile of a search space on one device or several side by side."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.kernel_space import KERNELS
from netlathe.archspace.presets import load_space
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.archspace.spaces import SearchSpace
from netlathe.archspace.tables import TABLE_ENDINGS, check_table_path, write_table
from netlathe.choosing import Choice, DeviceForecast, choose_items, forecast_campaign, forget, recorded_items, remember
from netlathe.events import Listener, Watch, listener_of
from netlathe.kernel_items import USUAL_KERNELS, KernelSpace, kernel_work
from netlathe.outputs import Output, OutputError, check_outputs
from netlathe.pooling import UnitReport, forecast_pool, is_pool_name, measure_pool, open_pool
from netlathe.progress_files import ProgressFile, beside
from netlathe.provenance import provenance
from netlathe.report.writing import make_page
from netlathe.stages import campaign_with_watch, results_first, work_items

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph
    from netlathe.archspace.sustained import SustainedRun
    from netlathe.profiler.again import Which
    from netlathe.profiler.campaign import CampaignSummary, WorkItem
    from netlathe.profiler.device import ProfilesOps
    from netlathe.profiler.devices import Device, DeviceOptions
    from netlathe.profiler.protocol import Plan

NETWORKS = 12
"""Whole networks that a profile times by default: they tell what a network costs beyond its blocks."""
LOADS = 12
"""Networks, or blocks, that make the load of a sustained profile."""
AGAIN_WORDS: Mapping[Which, str] = {"unstable": "is unstable", "failed": "failed or was unsupported"}


class StoppedError(NetlatheError):
    """End of a device's campaign by an interrupt or another device's failure; what it measured is kept."""


@dataclass(frozen=True)
class DeviceProfile:
    """Measurements of one call on one device."""

    device: str
    choice: Choice
    summary: CampaignSummary
    op_profile: bool = False
    """Whether its single kernels were timed, too."""
    units: tuple[UnitReport, ...] = ()
    """The phones that shared the work, where it is a pool of them."""
    sustained: SustainedRun | None = None
    """The load before it, where it is of sustained speed and anything was measured."""

    def to_json(self) -> dict[str, Any]:
        units = {"units": [one.to_json() for one in self.units]} if self.units else {}
        sustained = {"sustained": self.sustained.to_json()} if self.sustained else {}
        return {"device": self.device, **self.choice.to_json(), **summary_json(self.summary), **units, **sustained}


@dataclass(frozen=True)
class ProfileReport:
    """Measurements of one call, and where they are."""

    output: Path
    """The profile file."""
    space: str | None
    """The space's name; None where records of the profile were measured again."""
    devices: tuple[DeviceProfile, ...]
    table: Path | None = None
    """The table that the records were exported to."""
    again: Which | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every graph has a record, or a reason for having none; otherwise the same call goes on."""
        return not any(one.summary.unfinished for one in self.devices)

    def to_json(self) -> dict[str, Any]:
        answers = [one.to_json() for one in self.devices]
        whole = answers[0] if len(answers) == 1 else {**_totals(answers), "devices": answers}
        return {"output": str(self.output), "space": self.space, **whole}


@dataclass(frozen=True)
class ForecastReport:
    """Forecast of what a call of profile would measure."""

    devices: tuple[DeviceForecast, ...]

    def to_json(self) -> dict[str, Any]:
        answers = [one.to_json() for one in self.devices]
        return {"dry_run": True, **(answers[0] if len(answers) == 1 else {"devices": answers})}


@dataclass(frozen=True)
class ProfileSettings:
    """Choice of what is measured on each device, and for how long: the arguments that profile and forecast share."""

    blocks: int | None = None
    """New blocks to measure, those that teach a predictor most; None for all."""
    networks: int = NETWORKS
    """Whole networks to time as well."""
    rounds: int | None = None
    """Rounds of a graph at most; None for the default of the kind of device."""
    budget_s: float | None = None
    again: Which | None = None
    """Records of the profile to measure a second time, instead of the space."""
    sustained_s: float | None = None
    """Time under load before anything counts: speed when hot, in a setup of its own; None for that of a cool device."""
    seed: int = 0


@dataclass(frozen=True)
class DeviceRequest:
    """A device to profile on: a name as `netlathe devices` lists it, or an open device, which has its own options."""

    device: str | Device
    options: DeviceOptions


@dataclass(frozen=True)
class ProfileJob:
    """Work of one call: what is to be measured, where, and how."""

    output: Path
    """The profile file."""
    space: SearchSpace | KernelSpace
    devices: tuple[DeviceRequest, ...]
    settings: ProfileSettings
    op_profile: bool = False
    """Whether to time each kernel, too (phones)."""
    export: Path | None = None
    """Table of all records to write, .csv or .parquet."""
    page: bool = True
    """Whether to make the profile's page at the end."""

    @property
    def again(self) -> Which | None:
        return self.settings.again

    @property
    def pool(self) -> str:
        """Pool of phones that share the work: "all", or a file that lists them; '' where each device measures all."""
        return next((str(one.device) for one in self.devices if is_pool_name(one.device)), "")


def profile(
    output: str | Path,
    *,
    space: str | Path | SearchSpace | KernelSpace = "tiny",
    models: Sequence[str | Path | Graph] = (),
    device: str | Device | Sequence[str | Device] = "local",
    options: DeviceOptions | Mapping[str, DeviceOptions] | None = None,
    blocks: int | None = None,
    networks: int = NETWORKS,
    rounds: int | None = None,
    budget_s: float | None = None,
    again: Which | None = None,
    sustained_s: float | None = None,
    op_profile: bool = False,
    export: str | Path | None = None,
    page: bool = True,
    force: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> ProfileReport:
    """Times the blocks of a search space, and some whole networks, into a profile file; an existing one is continued.

    `space` is a preset's name, a space's file, or a SearchSpace: of its blocks that the profile file `output` does not
    hold yet, all are measured, or the `blocks` that teach a predictor most, and so many whole `networks`. The space
    "kernels" is of single kernels over the ranges that real networks have, by default 300 of them; with `models`, which
    are names, files or graphs, the very kernels of these are measured, and the first `networks` of them whole. `device`
    is a name as `netlathe devices` lists it, an open device, or several; "all" phones that are found, or those of a
    file (.toml), share the work: each graph is measured once per model, on whichever is free. `options` tell how the
    runtime is to run (threads, cores, dtype, ...), on all devices or by device's name. With `again`, what the profile
    holds and is such is measured a second time instead. `rounds` bounds the rounds of a graph, `budget_s` the time;
    both have defaults by the kind of device. With `sustained_s`, each device is first kept under load for so many
    seconds, and its speed when hot is measured, in a setup of its own. `op_profile` also times each kernel (phones).
    `export` is a .csv or .parquet of all records to write; `force` replaces any file there. Without `page`, no page is
    made at the end. Whatever interrupts this costs the round in flight: the same call continues. `progress`: True for
    the command's bars, or a listener of your own.

    Raises NetlatheError: OutputError for files that must not or cannot be written, DeviceError for a device that cannot
    be opened, SpaceError for a space that there is not.
    """
    job = ProfileJob(
        Path(output), _space(space, models), request_devices(device, options),
        ProfileSettings(blocks, networks, rounds, budget_s, again, sustained_s, seed), op_profile,
        Path(export) if export else None, page,
    )  # fmt: skip
    check_files(job, space, models, force=force)
    return run(job, listener_of(progress))


def forecast(
    output: str | Path,
    *,
    space: str | Path | SearchSpace | KernelSpace = "tiny",
    models: Sequence[str | Path | Graph] = (),
    device: str | Device | Sequence[str | Device] = "local",
    options: DeviceOptions | Mapping[str, DeviceOptions] | None = None,
    blocks: int | None = None,
    networks: int = NETWORKS,
    rounds: int | None = None,
    budget_s: float | None = None,
    again: Which | None = None,
    sustained_s: float | None = None,
    seed: int = 0,
    progress: bool | Listener = False,
) -> ForecastReport:
    """Tells what the same call of profile would measure, and for how long; nothing is measured or written.

    Raises NetlatheError as profile does.
    """
    settings = ProfileSettings(blocks, networks, rounds, budget_s, again, sustained_s, seed)
    job = ProfileJob(Path(output), _space(space, models), request_devices(device, options), settings)
    return run_forecast(job, listener_of(progress))


def _space(
    space: str | Path | SearchSpace | KernelSpace, models: Sequence[str | Path | Graph]
) -> SearchSpace | KernelSpace:
    if models:
        return KernelSpace.of_models(models)
    if isinstance(space, SearchSpace | KernelSpace):
        return space
    return KernelSpace() if str(space) == KERNELS else load_space(str(space))


def request_devices(
    device: str | Device | Sequence[str | Device], options: DeviceOptions | Mapping[str, DeviceOptions] | None
) -> tuple[DeviceRequest, ...]:
    """Each device with its options, those of DeviceOptions() where none are given for it. Raises NetlatheError for
    options of a device that is not among them."""
    from netlathe.profiler.devices import DeviceOptions

    devices = list(device) if isinstance(device, Sequence) and not isinstance(device, str) else [device]
    if not isinstance(options, Mapping):
        return tuple(DeviceRequest(one, options or DeviceOptions()) for one in devices)
    names = [one for one in devices if isinstance(one, str)]
    for name in options:
        if name not in names:
            raise NetlatheError(f"options for {name}, which is none of the devices {', '.join(names) or '(all open)'}")
    return tuple(
        DeviceRequest(one, options.get(one, DeviceOptions()) if isinstance(one, str) else DeviceOptions())
        for one in devices
    )


def check_files(job: ProfileJob, space: object, models: Sequence[object], *, force: bool) -> None:
    """Checks that files may be read and written: a profile is continued, never replaced, while the table that it is
    exported to may be. Raises OutputError."""
    if job.output.suffix in TABLE_ENDINGS:
        raise OutputError(
            f"--output {job.output}: a profile is no {job.output.suffix}; call it .sqlite, and write the table with "
            "--export"
        )
    binaries = {str(binary) for one in job.devices if (binary := one.options.benchmark_binary)}
    pools = [job.pool] if job.pool.endswith(".toml") else []
    inputs = [*(str(one) for one in (space, *models) if isinstance(one, str | Path)), *binaries, *pools]
    profile = Output("--output", job.output, "profile")
    check_outputs([profile], inputs)
    if job.export:
        check_table_path(job.export)
        check_outputs([profile, Output("--export", job.export, "records")], inputs, force=force)


def run_forecast(job: ProfileJob, listener: Listener) -> ForecastReport:
    """Tells what run would do; nothing is measured."""
    _check(job, creates=False)

    def forecast_on(name: str, setup: Setup, plan: Plan) -> DeviceForecast:
        found = forecast_campaign(name, _choice(job, setup), job.output, setup, plan, job.again)
        return dataclasses.replace(found, estimate_s=found.estimate_s + (job.settings.sustained_s or 0.0))

    if job.pool:
        pool = open_pool(job.pool, job.devices[0].options)
        found = forecast_pool(pool, forecast_on, lambda device: _plan(job, device), listener)
    else:
        with ExitStack() as stack:
            opened = _open(job, stack, listener)
            found = [forecast_on(name, device.setup, _plan(job, device)) for name, device in opened.items()]
    report = ForecastReport(tuple(found))
    listener.report(report)
    return report


def run(job: ProfileJob, listener: Listener) -> ProfileReport:
    """Does everything that profile does, with files checked."""
    _check(job, creates=True)
    with ProgressFile(listener, beside(job.output), "profile", job.output.name) as kept:
        found = _run_pool(job, kept) if job.pool else _run_devices(job, kept)
    if job.export:
        write_table([record for one in found for record in one.summary.records], job.export)
    report = ProfileReport(job.output, None if job.again else job.space.name, found, job.export, job.again)
    listener.report(report)
    if report.is_complete:  # and it was told: the next call chooses anew
        for one in found:
            forget(one.choice, job.output, one.summary.setup, job.again)
    if job.page:
        make_page(job.output, listener)
    return report


def _begin(job: ProfileJob, listener: Listener) -> None:
    """Tells that devices are there and are measured from now on, and by what command and versions."""
    listener.phase("measuring", is_done=False)
    with ProfileFile(job.output) as file:
        file.add_made(time.time(), provenance(listener.command))


def _run_pool(job: ProfileJob, listener: Listener) -> tuple[DeviceProfile, ...]:
    """Has phones share the work; what is found, by model."""
    with listener.working("looking for phones"):
        pool = open_pool(job.pool, job.devices[0].options)
    listener.step(f"Profiling {_subject(job)} on {len(pool.members)} phones")
    choices: dict[Setup, Choice] = {}

    def choose(setup: Setup) -> Sequence[WorkItem]:
        choices[setup] = _choice(job, setup)
        remember(choices[setup], job.output, setup)
        return choices[setup].items

    _begin(job, listener)
    settings = job.settings
    parts = measure_pool(
        pool, job.output, choose, rounds=settings.rounds, budget_s=settings.budget_s, seed=settings.seed,
        listener=listener,
    )  # fmt: skip
    return tuple(DeviceProfile(one.name, choices[one.setup], one.summary, units=one.units) for one in parts)


def _run_devices(job: ProfileJob, listener: Listener) -> tuple[DeviceProfile, ...]:
    """Measures everything on each device."""
    with ExitStack() as stack:
        opened = _open(job, stack, listener)
        choices = {name: _choice(job, device.setup) for name, device in opened.items()}
        if job.op_profile:
            for name, device in opened.items():
                _op_profiler(name, device)
        for name, device in opened.items():
            listener.step(f"Profiling {_subject(job)} on {device.setup}")
            _tell_steps(name, device, listener)
            if choices[name].words:
                listener.note(f"  {choices[name].words}")
            listener.warn(_left_out_words(choices[name].left_out))
            remember(choices[name], job.output, device.setup)
        campaigns = {name: (device, choices[name].items) for name, device in opened.items()}
        _begin(job, listener)
        measured = _measure_all(job, campaigns, listener)
    return tuple(
        DeviceProfile(name, choices[name], summary, job.op_profile, sustained=load)
        for name, (summary, load) in measured.items()
    )


def _open(job: ProfileJob, stack: ExitStack, listener: Listener) -> dict[str, Device]:
    """Opens the devices one after the other, and returns them by name; those that came open stay so."""
    from netlathe.profiler.devices import open_device

    opened: dict[str, Device] = {}
    for one in job.devices:
        if not isinstance(one.device, str):
            _check_speed(job, one.device.setup)
            opened[str(one.device.setup)] = one.device
            continue
        stack.enter_context(results_first(one.device, listener))
        with listener.working(f"opening {one.device}"):
            options = dataclasses.replace(one.options, sustained=job.settings.sustained_s is not None)
            opened[one.device] = stack.enter_context(open_device(one.device, options, report=listener.note))
    return opened


def _check(job: ProfileJob, *, creates: bool) -> None:
    """Checks what can be checked before a phone is touched. Raises NetlatheError for settings that exclude each other,
    and for files and devices that cannot be named or written."""
    settings = job.settings
    if settings.again and settings.blocks is not None:
        raise NetlatheError(f"again={settings.again!r} measures no new blocks; leave out blocks")
    names = [one.device for one in job.devices if isinstance(one.device, str)]
    if len(set(names)) < len(names):
        raise NetlatheError(f"--device: {', '.join(names)} names a device twice")
    if job.pool:
        _check_pool(job)
    else:
        _check_devices(job)
    if job.export:
        check_table_path(job.export)
    if job.again or creates:
        ProfileFile(job.output, create=not job.again).close()


def _check_devices(job: ProfileJob) -> None:
    """Raises DeviceError for a name that is no device's, and for options that it does not have."""
    from netlathe.profiler.devices import check_device

    for one in job.devices:
        if isinstance(one.device, str):
            check_device(one.device, one.options)


def _check_speed(job: ProfileJob, setup: Setup) -> None:
    """Raises NetlatheError for an open device whose setup is not of the speed that is asked for."""
    from netlathe.profiler.device import is_sustained

    if is_sustained(setup) != (job.settings.sustained_s is not None):
        raise NetlatheError(
            f"{setup}: sustained speed is a setup of its own; open the device with DeviceOptions(sustained=True), and "
            "give sustained_s"
        )


def _check_pool(job: ProfileJob) -> None:
    """Raises NetlatheError for what single devices can do, and pools cannot."""
    if len(job.devices) > 1:
        raise NetlatheError(f"--device {job.pool} is a pool, which other devices cannot join; list all in one file")
    unfit = {"--again": job.again, "--op-profile": job.op_profile, "--sustained": job.settings.sustained_s}
    if given := [name for name, value in unfit.items() if value]:
        raise NetlatheError(f"{', '.join(given)}: is for single phones, not for a pool; name one of them by --device")


def _tell_steps(name: str, device: Device, listener: Listener) -> None:
    """Tells what keeps a device steady, and what it lacks; what it refused, the device itself has reported."""
    from netlathe.profiler.device import HoldsSteady

    steps = device.steps if isinstance(device, HoldsSteady) else ()
    held = ", ".join(step.step.replace("_", " ") for step in steps if step.state == "held")
    if held:
        listener.note(f"  {name} held steady: {held}")
    listener.warn(step.report for step in steps if step.state == "unavailable")


def _subject(job: ProfileJob) -> str:
    return f"again what {AGAIN_WORDS[job.again]} in {job.output}" if job.again else f"space {job.space.name}"


def _left_out_words(left_out: Mapping[str, str]) -> list[str]:
    """A warning of the classes of kernels that cannot be measured on a device, if any."""
    if not left_out:
        return []
    first = next(iter(left_out.values()))
    names = ", ".join(left_out)
    return [f"{len(left_out)} classes of kernels are left out, as this runtime cannot be given them: {names} ({first})"]


class Measured(NamedTuple):
    """Measurements of one device: its campaign, and the load before it, if any."""

    summary: CampaignSummary
    sustained: SustainedRun | None


def heat_up(
    job: ProfileJob, device: Device, items: Sequence[WorkItem], plan: Plan, watch: Watch,
    on_heat: Callable[[float, float], None] = lambda at_s, heat_c: None,
) -> SustainedRun | None:  # fmt: skip
    """Runs the networks, without any the largest blocks, until the device is as hot as it gets, and keeps how it came
    to it in the profile; None where nothing is to be measured. `on_heat` is told of temperatures in °C, with the
    seconds since the load began. Raises DeviceError, MeasurementError."""
    from netlathe.archspace.sustained import temperature_c
    from netlathe.profiler.forecast import dry_run
    from netlathe.profiler.guess import work
    from netlathe.profiler.sustained import run_sustained

    duration_s = job.settings.sustained_s or 0.0
    with ProfileFile(job.output, create=True) as file:
        due = dry_run(items, file, device.setup, plan, job.again)
    if not (due.new or due.continued or due.again):
        return None
    largest = sorted(items, key=lambda item: (item.kind != "network", -work(item.graph)))
    networks = [item for item in largest if item.kind == "network"]
    loads = {item.graph.key: item for item in (networks or largest)[:LOADS]}
    names = {key: item.name for key, item in loads.items() if _is_loaded(device, item)}

    def on_sustained(at_s: float, conditions: Mapping[str, float | str]) -> None:
        heat = temperature_c(conditions)
        if heat is not None:
            on_heat(at_s, heat)
        left_s = max(0.0, duration_s - at_s) + due.estimate_s
        watch(0.0, left_s, f"load{'' if heat is None else f', {heat:.1f} °C'}")

    found = run_sustained(device, names, duration_s, seed=job.settings.seed, on_sustained=on_sustained)
    with ProfileFile(job.output, create=True) as file:
        file.add_setup(device.setup)
        file.add_graphs((names[key], loads[key].kind, loads[key].graph) for key in names)
        file.add_load(device.setup, found)
    device.unload(names)
    if found.is_interrupted:
        raise KeyboardInterrupt
    return found


def _is_loaded(device: Device, item: WorkItem) -> bool:
    """Loads a graph; False where it does not run there."""
    from netlathe.profiler.errors import MeasurementError, UnsupportedGraphError

    try:
        device.load(item.graph.key, item.graph)
    except (UnsupportedGraphError, MeasurementError):
        return False
    return True


def _measure_all(
    job: ProfileJob, campaigns: Mapping[str, tuple[Device, list[WorkItem]]], listener: Listener
) -> dict[str, Measured]:
    """Each device's campaign, in a thread of its own where there are several. Raises the first device's error once all
    have ended."""
    with listener.watching(list(campaigns)) as watches:
        if len(campaigns) == 1:
            ((name, (device, items)),) = campaigns.items()
            return {name: _measure(job, name, device, items, watches[0], listener)}
        stop = threading.Event()
        with ThreadPoolExecutor(len(campaigns)) as pool:
            futures = {
                name: pool.submit(_measure, job, name, device, items, _stoppable(watch, stop), listener)
                for (name, (device, items)), watch in zip(campaigns.items(), watches, strict=True)
            }
            try:
                return _results(futures)
            except BaseException:
                stop.set()
                raise


def _results(futures: Mapping[str, Future[Measured]]) -> dict[str, Measured]:
    """Measurements by device's name, once all have ended. Raises the error of one that failed."""
    errors = {name: error for name, future in futures.items() if (error := future.exception())}
    for name, error in errors.items():
        if len(errors) < len(futures) and isinstance(error, NetlatheError):
            others = ", ".join(other for other in futures if other not in errors)
            raise NetlatheError(f"{name}: {error} (finished and kept: {others})") from error
        raise error
    return {name: future.result() for name, future in futures.items()}


def _stoppable(watch: Watch, stop: threading.Event) -> Watch:
    """Watch that ends the campaign which tells it of its progress once `stop` is set."""

    def watch_or_stop(share: float, left_s: float | None, note: str) -> None:
        if stop.is_set():
            raise StoppedError("interrupted; what was measured is kept")
        watch(share, left_s, note)

    return watch_or_stop


def _measure(
    job: ProfileJob, name: str, device: Device, items: Sequence[WorkItem], watch: Watch, listener: Listener
) -> Measured:
    """The device's campaign, behind a load where it is one of sustained speed, then its single kernels where they are
    asked for."""

    def on_wait(words: str) -> None:
        listener.log(f"  {name}: {words}")

    def on_heat(at_s: float, heat_c: float) -> None:
        listener.scalar(f"{name}/°C under load, by seconds", heat_c, round(at_s))

    plan = _plan(job, device)
    load = heat_up(job, device, items, plan, watch, on_heat) if job.settings.sustained_s else None
    summary = campaign_with_watch(
        device, items, job.output, plan, again=job.again, seed=job.settings.seed, watch=watch, on_wait=on_wait
    )
    if job.op_profile:
        watch(1.0, None, "timing kernels")
        _profile_ops(job, device, summary, listener)
    return Measured(summary, load)


def _choice(job: ProfileJob, setup: Setup) -> Choice:
    if job.again:
        return Choice(recorded_items(job.output, setup))
    if isinstance(job.space, KernelSpace):
        return _choose_kernels(job, job.space, setup)
    items = work_items(job.space, networks=job.settings.networks, batch=setup.batch, seed=job.settings.seed)
    if job.settings.blocks is None:
        return Choice(items)
    return choose_items(items, job.settings.blocks, job.output, setup, job.settings.seed)


def _choose_kernels(job: ProfileJob, space: KernelSpace, setup: Setup) -> Choice:
    """Kernels of each class by its share; all of them where they are those of given models and none is to be chosen."""
    settings = job.settings
    work = kernel_work(space, setup, networks=settings.networks, seed=settings.seed)
    if settings.blocks is None and space.models:
        return Choice(work.items, left_out=work.left_out)
    count = USUAL_KERNELS if settings.blocks is None else settings.blocks
    found = choose_items(work.items, count, job.output, setup, settings.seed, work.groups)
    return found._replace(left_out=work.left_out)


def _plan(job: ProfileJob, device: Device) -> Plan:
    from netlathe.profiler.devices import default_plan

    plan = dataclasses.replace(default_plan(device), budget_s=job.settings.budget_s)
    rounds = job.settings.rounds
    if rounds is None:
        return plan
    return dataclasses.replace(plan, max_rounds=rounds, min_rounds=min(plan.min_rounds, rounds))


def _profile_ops(job: ProfileJob, device: Device, summary: CampaignSummary, listener: Listener) -> None:
    """Stores kernel times of the graphs that have none yet, or were measured again."""
    profiler = _op_profiler(str(device.setup), device)
    with ProfileFile(job.output) as file:
        known = {row["graph"] for row in file.op_times(device.setup)}
        missing = {
            record.graph.key: record
            for record in summary.records
            if record.graph.key not in known or record.name in summary.again
        }
        for key, record in missing.items():
            device.load(key, record.graph)
        for key, found in profiler.profile_ops(list(missing)):
            file.set_op_times(device.setup, key, [dataclasses.asdict(op) for op in found.op_times])
            if found.peak_memory_mb is not None:
                details = {**dict(missing[key].details), "peak_memory_mb": found.peak_memory_mb}
                file.set_outcome(device.setup, key, Status.OK, details=details)
            del missing[key]
    if missing:
        names = ", ".join(record.name for record in missing.values())
        listener.note(f"  {len(missing)} graphs have no kernel times, as their profiling runs failed: {names}")


def _op_profiler(name: str, device: Device) -> ProfilesOps:
    """The device, as one that tells the time of single kernels. Raises NetlatheError where it does not."""
    from netlathe.profiler.device import ProfilesOps

    if isinstance(device, ProfilesOps):
        return device
    raise NetlatheError(
        f"--op-profile: {name} does not tell the time of single kernels, only a phone does; leave it out"
    )


def _totals(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of counts and times over all devices; the wall time is the longest one's."""
    counts = (
        "records", "blocks", "networks", "failed", "unsupported", "unfinished", "again", "reused", "rounds", "redone",
    )  # fmt: skip
    return {
        **{name: sum(answer[name] for answer in answers) for name in counts},
        "inference_s": round(sum(answer["inference_s"] for answer in answers), 2),
        "wall_s": max(answer["wall_s"] for answer in answers),
        "setup": [answer["setup"] for answer in answers],
    }


def summary_json(summary: CampaignSummary) -> dict[str, Any]:
    """Summary for machines, of numbers, words and lists."""
    return {
        "records": len(summary.records),
        "blocks": sum(r.kind == "block" for r in summary.records),
        "networks": sum(r.kind == "network" for r in summary.records),
        "failed": len(summary.failed),
        "unsupported": len(summary.unsupported),
        "unfinished": len(summary.unfinished),
        "again": len(summary.again),
        "reused": summary.reused,
        "rounds": summary.rounds,
        "redone": summary.redone,
        "wall_s": round(summary.wall_s, 2),
        "inference_s": round(summary.inference_s, 2),
        "noise_floor": summary.noise_floor,
        "anchor_noise": summary.anchor_noise,
        "drift_range": summary.drift_range,
        "warnings": list(summary.warnings),
        "setup": summary.setup.to_json(),
        "setup_key": summary.setup.key,
    }
