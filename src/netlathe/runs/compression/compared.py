"""Networks that a compression is compared with: the original at uniform widths, and, where that is asked for,
MobileNetV2s that are trained from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from netlathe.archspace.decisions import Choices
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.networks import mobilenet_v2
from netlathe.archspace.spaces import Architecture
from netlathe.runs.baselines import BaselinePhase, BaselineSettings
from netlathe.runs.compression.looked import LossLog, loss_inputs
from netlathe.runs.compression.outlook import Outlook
from netlathe.runs.compression.report import Finalist
from netlathe.runs.compression.scored import Scored
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.shaped import FinalistLoss
from netlathe.runs.files import UNIFORM
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase

if TYPE_CHECKING:
    from netlathe.training import ImageData

SHARES = (1.0, 0.75, 0.5)
"""Shares of all widths that the original is looked at with, beside the least one and the largest within the limits."""
FROM_SCRATCH = 0.05
"""Least learning rate of a baseline's training: what is gentle on weights that are good would leave random ones bad."""


class UniformPhase(Phase[tuple[Finalist, ...]]):
    """Looks at the original with all layers narrowed alike, as finalists are looked at: refitted, not trained."""

    record, kind = UNIFORM, "uniform"

    def __init__(self, settings: CompressSettings, place: Workplace, outlook: Outlook, scored: Scored) -> None:
        self.settings, self.scored = settings, scored
        self.networks = dict(_uniform(settings, outlook))
        inputs = {
            **loss_inputs(settings), "predictor": settings.goal.main.content,
            "networks": [list(choices) for choices in self.networks],
        }  # fmt: skip
        super().__init__(place, inputs)

    def work(self) -> tuple[Finalist, ...]:
        """Raises TrainingError for a loss that is no number."""
        look = LossLog(self.settings, self.place, FinalistLoss(self.settings, self.place, self.scored))
        losses: dict[Choices, float] = {}
        with self.place.listener.progress("looking at uniform widths", "networks") as update:
            for number, (choices, name) in enumerate(self.networks.items()):
                update(number, len(self.networks), name)
                losses[choices] = look(choices)
        accuracies = {choices: look.accuracy(choices) for choices in losses}
        return looked_at(self.settings, losses, accuracies, self.networks)

    def write(self, output: tuple[Finalist, ...]) -> dict[str, Any]:
        return {"uniform": [one.to_json() for one in output]}

    def read(self, content: Mapping[str, Any]) -> tuple[Finalist, ...]:
        found = tuple(map(Finalist.from_json, content["uniform"]))
        for one in found:
            self.settings.space.network_name(one.choices)
        return found

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: what was looked at already is in the log of losses."""
        return True


def _uniform(settings: CompressSettings, outlook: Outlook) -> Iterator[tuple[Choices, str]]:
    """Networks of uniform widths in float32, the widest one within the limits among them; their names."""
    space = settings.space
    for choices in outlook.starts:
        if not space.is_mixed(choices):
            yield choices, "uniform, at the target"
    for share in (*SHARES, settings.least_share):
        yield space.alike(share), f"uniform {100 * share:.3g} %"


def looked_at(
    settings: CompressSettings,
    losses: Mapping[Choices, float],
    accuracies: Mapping[Choices, float | None],
    names: Mapping[Choices, str] | None = None,
) -> tuple[Finalist, ...]:
    """Networks that were looked at as a report tells of them, in the order of `losses`."""
    model, space = settings.goal.main.model, settings.space
    graphs = [space.graph(choices, model.setup_.batch) for choices in losses]
    priced = model.predict(graphs) if graphs else ()
    return tuple(
        Finalist(
            names[choices] if names else space.network_name(choices), choices, loss, float(ms), graph.macs,
            accuracies.get(choices),
        )
        for (choices, loss), ms, graph in zip(losses.items(), priced, graphs, strict=True)
    )  # fmt: skip


class ScratchPhase(BaselinePhase):
    """Training and timing of a compression's baselines."""

    remedy = Phase.remedy


def mobile_networks(settings: CompressSettings, widths: Sequence[float]) -> tuple[Architecture, ...]:
    """MobileNetV2 at these multiples of its width, for the images of a compression. Raises NetlatheError where it takes
    no such images, and for widths that are none; UnknownOpError for what the main target's predictor does not price."""
    data = settings.data
    if not widths:
        return ()
    if data is None:
        raise NetlatheError("--baselines: these are trained, so give images (--data)")
    height, width, channels = data.input_shape
    if height != width or channels != 3:
        raise NetlatheError(
            f"--baselines: MobileNetV2 takes square images of three channels, not of {height}x{width}x{channels}; "
            "leave the option out"
        )
    for part in widths:
        if not 0.05 <= part <= 8:
            raise NetlatheError(f"--baselines: a width is a number from 0.05 to 8, not {part!r}")
    networks = tuple(mobilenet_v2(part, height, len(data.classes)) for part in sorted({*widths}))
    settings.goal.main.model.predict([one.graph(settings.goal.main.model.setup_.batch) for one in networks])
    return networks


def baseline_settings(settings: CompressSettings, data: ImageData) -> BaselineSettings:
    """How a compression's baselines are trained: for as long as its result, and at no lower a learning rate than random
    weights need; and without a teacher."""
    from netlathe.training import TrainConfig

    training = settings.training
    assert training is not None
    if isinstance(training, TrainConfig):
        training = replace(training, learning_rate=max(training.learning_rate, FROM_SCRATCH))
    return BaselineSettings(settings.baselines, data, settings.goal, training, settings.device)
