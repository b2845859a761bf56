"""Plans of runs: their phases in order, with the work of trainings, which images, epochs and networks foretell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlathe.runs.settings import RunSettings

if TYPE_CHECKING:
    from netlathe.archspace.spaces import Architecture
    from netlathe.runs.compression.settings import CompressSettings

Plan = dict[str, float | None]
"""Multiply-adds by phase; None where nothing foretells them, as where a device is waited for."""
_PASSES = 3
"""Times that a training computes a network for an image: forward, and backward to its values and to its weights."""

_LOOKS = 4
"""Times that a compression lets the original classify as many validation images, to see how it takes them."""
_ARCHITECTURE_STEP = 2 * 2 / _PASSES
"""Work of a step of the architecture, in steps of the weights."""


def search_plan(
    settings: RunSettings, series: str = "", *, is_warm: bool = False, found: Architecture | None = None
) -> Plan:
    """Plan of a search, whose supernet `is_warm` where several targets share its beginning. Before a network was
    `found`, its work is that of the space's reference."""
    network = found or settings.space.architecture(settings.space.reference)
    return {
        f"{series}{name}": work
        for name, work in (
            ("search", _search_work(settings, is_warm=is_warm)),
            ("choice", None),
            ("training", _training_work(settings.training, len(settings.data.train), network.macs)),
            ("export", None),
            *((("baselines", None),) if settings.baselines else ()),
            ("run", None),
        )
    }


def _search_work(settings: RunSettings, *, is_warm: bool) -> float | None:
    """Work of a path-binarized search: a step of the architecture computes two paths, without gradients of weights.
    Looks at whole networks are several steps of unlike length."""
    if settings.looking:
        return None
    config, macs = settings.search, settings.space.architecture(settings.space.reference).macs
    before = 0 if is_warm else config.start_epochs + config.warmup_epochs
    epochs = before + config.epochs * (1 + _ARCHITECTURE_STEP / config.architecture_every)
    return _PASSES * epochs * len(settings.data.train) * macs


def compression_plan(settings: CompressSettings, images: int, macs: int | None = None) -> Plan:
    """Plan of a compression; `images` are those that the original is looked at by, `macs` those of the network that is
    trained, at first the original's."""
    original = settings.original.graph.macs / settings.original.graph.batch
    training: Plan = {}
    importance = None
    if settings.data:
        importance = (_PASSES + _LOOKS) * min(images, len(settings.data.train)) * original
        work = _training_work(settings.training, len(settings.data.train), original if macs is None else macs)
        teacher = getattr(settings.training, "epochs", 0) * len(settings.data.train) * original
        training = {"training": None if work is None else work + (teacher if settings.distillation else 0)}
    return {
        "importance": importance,
        **({"sensitivity": None} if settings.space.blocks or settings.space.segments else {}),
        "widths": None,
        **training,
        "export": None,
        **({"uniform": None} if settings.data or settings.score else {}),
        **({"baselines": None} if settings.baselines else {}),
        "compression": None,
    }


def _training_work(training: Any, images: int, macs: float) -> float | None:
    """Work of netlathe's own training; a recipe of the user's does as it likes."""
    from netlathe.training import TrainConfig

    return _PASSES * training.epochs * images * macs if isinstance(training, TrainConfig) else None
