"""`netlathe compress`: from a model and a target to a finished folder, through its phases."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.errors import FormatError
from netlathe.arguments import Common, compress_goal
from netlathe.events import Listener, listener_of
from netlathe.outputs import COMPRESSION_FILES
from netlathe.pricing import Unknown
from netlathe.progress_files import ProgressFile
from netlathe.report.writing import make_page
from netlathe.runs.compression.compared import ScratchPhase, UniformPhase, baseline_settings, mobile_networks
from netlathe.runs.compression.outlook import Outlook, Stage, check_reached, look_ahead, told, why_fixed
from netlathe.runs.compression.recovered import check_max_drop
from netlathe.runs.compression.report import CompressReport
from netlathe.runs.compression.reported import CompressReportPhase, limits_of, targets_of
from netlathe.runs.compression.scored import MOST_IMAGES, ScorePhase, images_within
from netlathe.runs.compression.sensitivity import SensitivityPhase
from netlathe.runs.compression.settings import (
    CompressSettings,
    Model,
    ModuleScore,
    Original,
    name_all,
    read_original,
)
from netlathe.runs.compression.shaped import ShapedNetwork, ShapePhase
from netlathe.runs.compression.tuned import TunePhase
from netlathe.runs.compression.written import WritePhase
from netlathe.runs.files import IMPORTANCE, PAGE, PROGRESS, REPORT
from netlathe.runs.folder import RunFolder, Workplace
from netlathe.runs.judges import DeviceAtHand, time_file
from netlathe.runs.plans import compression_plan
from netlathe.runs.settings import Recipe, load_told, name_of, trained_by
from netlathe.targets import Limit, Target
from netlathe.words import milliseconds

if TYPE_CHECKING:
    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.archspace.records import Measurement
    from netlathe.training import Compute, ImageData, Normalization, TrainConfig
    from netlathe.training.sources import Source

EPOCHS, LEARNING_RATE = 10, 0.02
"""Settings of the training by default: short, and gentle on weights that are good already."""


def compress(
    model: Model,
    example_inputs: ExampleInputs | None = None,
    *,
    target: Target | Sequence[Target],
    output: str | Path,
    data: Source | ImageData | None = None,
    limits: Sequence[Limit] = (),
    ignored: str | Collection[str] = (),
    precisions: Sequence[str] = ("float32",),
    leave_out: bool = False,
    step: int = 8,
    least_share: float = 0.25,
    strategy: str = "integer-program",
    looks: int = 100,
    finalists: int = 8,
    training: TrainConfig | Recipe | None = None,
    baselines: Sequence[float] = (),
    recipe: str | None = None,
    distillation: float = 0.5,
    temperature: float = 4.0,
    max_drop: float | None = None,
    normalization: str | Normalization | None = None,
    score: ModuleScore | None = None,
    device: str | None = None,
    profile: str | Path | None = None,
    benchmark_binary: str | Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    compute: Compute | None = None,
    limit_images: int | None = None,
    skip_unreadable: int = 0,
    unknown: Unknown = "refuse",
    page: bool = True,
    restart: bool = False,
    seed: int = 0,
    progress: bool | Listener = False,
) -> CompressReport:
    """Narrows the layers of a trained model until it meets a latency target, and loses as little as it can.

    `model` is what `read_weights` takes: a .onnx or .tflite file, a torch module (with `example_inputs`, what it is
    called with) or exported program; FILE.py:FUNCTION, which returns one of these; or timm:NAME or torchvision:NAME,
    whose weights are random. It is only read.
    `target` and `limits` are those of `search`, `macs`, `parameters` and `memory-kb` among the latter, and `size-kb`,
    KiB of the .tflite file. Widths are multiples of `step` channels, down to `least_share` of a layer's own; the layers
    named in `ignored` keep theirs. With `leave_out`, residual blocks may go as a whole. With several `precisions`, of
    float32, float16, int8 and int8-weights, each stretch of the network between two places where a single tensor
    crosses gets one of them, and targets name a predictor for each dtype (`Target.others`): what is quick on a device
    is measured there, not assumed. All is decided by one integer program, in which a choice counts by how much the loss
    rises: measured on validation images where a block is left out or a segment is in another precision, and on some
    random cuts of widths, which the widths' scores are scaled by.

    Which channels go is decided by the change of the loss where they do, to first order, on some training images of
    `data`, and by an integer program over all layers; `finalists` such networks are compared on validation images, or
    by your own `score(module)`, the higher the better. With another `strategy`, networks within the limits are looked
    at one by one by that loss or score, `looks` of them (ego, uct, evolution, local, thompson, actor-critic, tpe,
    nsga2, random); or layers are narrowed one after the other from the original on (netadapt), or all alike (uniform).
    Where a `device` is at hand, as profile takes it, networks are
    repaired until the time measured there is within the target; otherwise the upper end of the 90 % interval is. Then
    the network is trained: by `training`, a TrainConfig or a function of your own as search takes it, or by the
    published `recipe` of that name; netlathe's own also
    learns from the original's outputs, `distillation` parts of the loss at `temperature`. Images whose classes are not
    the model's teach through its outputs alone. Without `data`, channels go by the size of their weights, nothing is
    trained, and the files are judged by latency alone.

    With images, the original at uniform widths is looked at as the finalists are, to compare with; with `baselines`,
    MobileNetV2 at these multiples of its width is trained from scratch, for as long as the result, and timed with it.
    With `max_drop`, the int8 file, and the mixed one of several `precisions`, loses at most so many points of accuracy,
    as 0.5, against the float32 file on validation images: one that loses more gets its channels equalized, better
    ranges, and corrected biases, and is trained with its rounding in it, until it does not; `recoveries` of the report
    tell each step. Where that is not enough, the best file is kept, and the report's `is_met` is false. Needs `data`.

    `normalization` is how the model takes images: 'imagenet', '-1..1', '0..1', '0..255', 'MEAN/STD' of pixels from 0
    to 1, or a Normalization. Where it is not given, and neither the images nor the model tell, it is the one that the
    model clearly does best with, else '-1..1'.

    `output` is the folder: the same call continues what is there, and reads what is finished; one of another model,
    other images or widths is refused unless `restart` begins anew. Without `page`, it gets no report.html. A model
    that meets the target already is left alone: the report's `is_changed` is false, and nothing is written. With a
    `device`, it does so as it is measured.

    Raises TargetError, with the fastest latency that there is, where no widths meet a target; FormatError for a model
    that cannot be read; UnknownOpError for ops that a predictor does not know; CompressError for layers to ignore that
    there are not, and where no channels can be cut; NetlatheError for a `max_drop` that is none, or without `data`;
    OutputError, DataError, TrainingError and DeviceError as search
    does.
    """
    check_max_drop(max_drop, has_images=data is not None)
    training = trained_by(training, recipe, lambda name: tuning(name, seed=seed))
    for own in (training, score):
        if callable(own):
            name_of(own)
    folder, leads = Path(output), compute is None or compute.ranks.leads
    common = Common(
        target=target, output=output, data=data, limits=limits, unknown=unknown, device=device, profile=profile,
        benchmark_binary=benchmark_binary, recipe=recipe, writes=leads,
    )  # fmt: skip
    goal = compress_goal(common, model, strategy=strategy, precisions=precisions)
    asked = _parsed(normalization)
    original = read_original(model, example_inputs, shapes)
    at_hand = DeviceAtHand(
        device, Path(profile) if profile else None, Path(benchmark_binary) if benchmark_binary else None, seed
    ) if device else None  # fmt: skip
    with _placed(folder, compute, listener_of(progress) if leads else Listener()) as place:
        loaded = None if data is None else _images(data, original, limit_images, seed, skip_unreadable, place.listener)
        said = _said(asked, loaded, original) if loaded else None
        settings = CompressSettings(
            original, goal, loaded, training if loaded else None, name_all(ignored),
            tuple(precisions), leave_out, step, least_share, strategy, looks, finalists, distillation, temperature,
            score, at_hand, seed, said, max_drop,
        )  # fmt: skip
        settings = replace(settings, baselines=mobile_networks(settings, baselines))
        report = run_phases(settings, place, restart=restart)
        place.listener.report(report)
        if page and leads and report.is_changed and not (folder / PAGE).is_file():
            make_page(folder, place.listener)
        return report


@contextmanager
def _placed(folder: Path, compute: Compute | None, listener: Listener) -> Iterator[Workplace]:
    """Context with the place of a compression, in which no other process works in its folder."""
    from netlathe.training import Compute

    compute = compute or Compute()
    own = partial(RunFolder, folder, is_own=compute.ranks.leads)
    with own().held(), ExitStack() as stack:
        if compute.ranks.leads:
            listener = stack.enter_context(ProgressFile(listener, folder / PROGRESS, "compression", folder.name))
        stack.enter_context(compute.threaded())
        listener.warn(compute.doubts())
        yield Workplace(own(), compute, listener)


def tuning(recipe: str | None = None, **given: Any) -> TrainConfig:
    """Settings of the training of a compressed network: short and gentle, or those of a published recipe by name, with
    those that are `given` in their place; None leaves them. Raises TrainingError for a recipe that there is not."""
    from netlathe.training.recipes import make_training

    own = {} if recipe else {"epochs": EPOCHS, "learning_rate": LEARNING_RATE}
    return make_training(recipe, **{**own, **{name: value for name, value in given.items() if value is not None}})


def _images(
    data: Source | ImageData, original: Original, limit: int | None, seed: int, skip_unreadable: int, listener: Listener
) -> ImageData:
    """The images in the model's size. Raises FormatError for a model that takes no image, DataError for other
    images."""
    from netlathe.training import DataError

    inputs = original.graph.inputs
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] not in (1, 3):
        raise FormatError(
            f"{original.name} takes {', '.join(map(str, inputs))}, no single image of one or three channels; leave the "
            "images out, and train what is found yourself"
        )
    _, height, width, channels = inputs[0]
    loaded = load_told(data, (height, width, channels), limit, seed, skip_unreadable, listener)
    if loaded.input_shape != (height, width, channels):
        raise DataError(f"{original.name} takes images of {(height, width, channels)}, not of {loaded.input_shape}")
    return loaded


def _parsed(given: str | Normalization | None) -> Normalization | None:
    if not isinstance(given, str):
        return given
    from netlathe.training import Normalization

    return Normalization.parse(given)


def _said(asked: Normalization | None, data: ImageData, original: Original) -> Normalization | None:
    """How the model takes images, by the first of these that tells: what was asked for, the images, the model.
    Raises DataError for a normalization of other channels."""
    from netlathe.training.normalization import SYMMETRIC

    said = asked or (data.normalization if data.normalization != SYMMETRIC else original.normalization)
    if said:
        said.check(data.input_shape[2])
    return said


def run_phases(settings: CompressSettings, place: Workplace, *, restart: bool = False) -> CompressReport:
    """The outlook, told before any work, then the phases from wherever the folder stands to its report. Raises
    FormatError where the folder holds another compression."""
    original, goal, listener = settings.original, settings.goal, place.listener
    wanted = " and ".join(f"{one.limit_ms:.3g} ms on {one.model.setup_}" for one in goal.targets)
    listener.step(f"Compressing {original.name} to {wanted}")
    with listener.working("pricing it at other widths"):
        outlook = look_ahead(settings)
    listener.table(*told(outlook))
    for line in why_fixed(settings):
        listener.note(f"  Not cut: {line}")
    listener.warn(original.notes)
    is_begun = place.ranks.told(lambda: (place.path / IMPORTANCE).is_file() and not restart)
    if settings.device and is_begun:  # what is missing there should show before minutes of work
        place.ranks.told(lambda: _opened(settings, place))
    else:
        timed = place.ranks.told(lambda: _timed(settings, place, outlook.original))
        if _is_met(settings, outlook, timed):
            return _unchanged(settings, place, outlook, timed)
        if timed:
            level = timed.latency_ms / outlook.original.latencies[0].ms
            place.ranks.told(lambda: _check_fastest(settings, place, outlook, level))
    if restart:
        place.remove((REPORT, *COMPRESSION_FILES))
    images = images_within(settings, place, MOST_IMAGES)
    place.listener.plan(compression_plan(settings, images))
    with place.folder.watched():
        scoring = ScorePhase(settings, place)
        scored = scoring.output()
        settings = settings.taking_images(scored.normalization)
        decides_on_more = settings.space.blocks or settings.space.segments
        sensitivity = SensitivityPhase(settings, place, scored).output() if decides_on_more else None
        choosing = ShapePhase(settings, place, outlook, scored, sensitivity)
        shaped = choosing.output()
        place.listener.plan(compression_plan(settings, images, settings.space.graph(shaped.choices).macs))
        tuning = TunePhase(settings, place, scored, shaped) if settings.data else None
        tuned = tuning.output() if tuning else None
        made = {**(tuning or scoring).inputs, **settings.space_inputs(), "choices": list(shaped.choices)}
        made |= settings.written_inputs()
        exported = WritePhase(settings, place, made, scored, shaped, tuned).output()
        is_judged = settings.data is not None or settings.score is not None
        uniform = UniformPhase(settings, place, outlook, scored).output() if is_judged else ()
        whole = {**made, **choosing.inputs}
        if settings.baselines and settings.data and scored.teacher == "labels":
            training = ScratchPhase(baseline_settings(settings, settings.data), place)
            training.output()
            whole = {**whole, "baselines": training.inputs["networks"]}
        return CompressReportPhase(settings, place, whole, outlook, scored, shaped, tuned, exported, uniform).output()


def _opened(settings: CompressSettings, place: Workplace) -> None:
    """Opens the device, and closes it. Raises DeviceError where that fails."""
    assert settings.device is not None
    with settings.device.open(settings.goal.main, place.listener):
        pass


def _timed(settings: CompressSettings, place: Workplace, stage: Stage) -> Measurement | None:
    """A stage's latency on the device, where there is one."""
    if settings.device is None:
        return None
    network = ShapedNetwork(settings, stage.choices)
    with place.listener.working(f"timing the {stage.name} network"):
        timed = time_file(network, None, settings.goal.main, settings.device, place.listener)
    place.listener.note(
        f"  The {stage.name} network takes {milliseconds(timed.latency_ms)} ms on {settings.device.address}"
    )
    return timed


def _check_fastest(settings: CompressSettings, place: Workplace, outlook: Outlook, level: float) -> None:
    """Times the fastest network where its prediction, times the level that the original showed, says that the target is
    out of reach. Raises TargetError where it is."""
    fastest, main = outlook.stages[-1], settings.goal.main
    if level * fastest.latencies[0].ms > main.limit_ms:
        timed = _timed(settings, place, fastest)
        limits = settings.limits([one.model for one in settings.goal.targets])[:1]
        check_reached(settings, limits, fastest.choices, timed.latency_ms if timed else None)


def _is_met(settings: CompressSettings, outlook: Outlook, timed: Measurement | None) -> bool:
    """Whether the original meets every limit: the main target's as it was timed, or else as all by predictions."""
    if timed is None:
        return outlook.is_kept
    space, (main, *others) = settings.space, settings.limits([one.model for one in settings.goal.targets])
    is_quick = timed.latency_ms <= main.limit
    return is_quick and all(one.cost(space, space.reference) <= one.limit for one in others)


def _unchanged(
    settings: CompressSettings, place: Workplace, outlook: Outlook, timed: Measurement | None
) -> CompressReport:
    """The report on a model that meets every limit as it is, by predictions or as it was timed."""
    network = ShapedNetwork(settings, settings.space.reference)
    listener = place.listener
    listener.note(f"  {settings.original.name} meets every limit as it is: nothing was done")
    warnings = [
        f"the interval of {settings.original.name} on {one.device} ends above the target, at {one.high_ms:.3g} ms; "
        "measure it (netlathe time), or lower the target"
        for index, (one, target) in enumerate(zip(outlook.original.latencies, settings.goal.targets, strict=True))
        if one.high_ms > target.limit_ms and not (timed and index == 0)
    ]
    by = f"stopwatch on {settings.device.address}" if timed and settings.device else "prediction"
    return CompressReport(
        name=settings.original.name, folder=str(place.path), is_changed=False, stages=outlook.stages,
        fixed=tuple(why_fixed(settings)), targets=targets_of(settings, network, timed),
        limits=limits_of(settings, network),
        layers=(), importance="", normalization=None,
        judged={"by": by, "is_met": True, "judgements": 1, "timed": []},
        is_met=True, accuracy={}, original_accuracy=None, untrained_accuracy=None, files={}, seconds={},
        warnings=tuple(warnings), run=settings.choice_inputs(),
    )  # fmt: skip
