"""Networks that other packages define: timm:NAME and torchvision:NAME, with random weights; nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple

from netlathe.archspace.errors import FormatError, SpaceError, did_you_mean

if TYPE_CHECKING:
    from netlathe.archspace.graph import Graph
    from netlathe.training import Normalization


class ZooModule(NamedTuple):
    """A torch module of another package."""

    module: Any
    image: tuple[int, int, int]
    """(channels, height, width) of the images that it takes."""
    normalization: Normalization | None
    """How it takes them, where the package tells."""


def is_zoo_name(what: str) -> bool:
    """Whether it names a network of another package."""
    return what.partition(":")[0] in _ZOOS


def check_zoo(what: str) -> None:
    """Raises FormatError where the package that is named is not installed."""
    package = what.partition(":")[0]
    if find_spec(package) is None:
        raise FormatError(f"{what}: {package} is not installed: pip install {package}")


def zoo_graph(what: str, *, batch: int = 1, shape: Sequence[int] | None = None) -> Graph:
    """The graph of timm:NAME or torchvision:NAME on images of the size that it was made for, or of `shape`
    (N, C, H, W).

    Raises FormatError where the package is not installed or torch cannot export the network, SpaceError for a name that
    the package does not know.
    """
    import torch

    from netlathe.archspace.forms.torch_program import read_module

    made = zoo_module(what)
    sizes = tuple(shape) if shape is not None else (batch, *made.image)
    try:
        return read_module(made.module, torch.zeros(sizes))
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error


def zoo_module(what: str) -> ZooModule:
    """The torch module of timm:NAME or torchvision:NAME with random weights. Raises as zoo_graph does."""
    check_zoo(what)
    package, _, name = what.partition(":")
    import torch

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # drawn weights are no one else's affair
        warnings.simplefilter("ignore")
        return _ZOOS[package](name)


def own_normalization(module: object) -> Normalization | None:
    """How a timm module takes images, by its own `pretrained_cfg`; None for any other."""
    return _normalization(getattr(module, "pretrained_cfg", None))


def _normalization(settings: object) -> Normalization | None:
    """That of settings with `mean` and `std`, of pixels from 0 to 1; None where they tell none."""
    from netlathe.training.normalization import Normalization

    if not isinstance(settings, Mapping) or not {"mean", "std"} <= settings.keys():
        return None
    return Normalization(*(tuple(map(float, settings[key])) for key in ("mean", "std")))


def _of_timm(name: str) -> ZooModule:
    timm = import_module("timm")
    if name not in timm.list_models():
        raise SpaceError(_unknown("timm", name, timm.list_models()))
    module = timm.create_model(name, pretrained=False)
    channels, height, width = module.pretrained_cfg["input_size"]
    return ZooModule(module, (channels, height, width), own_normalization(module))


def _of_torchvision(name: str) -> ZooModule:
    models = import_module("torchvision.models")
    if name not in models.list_models():
        raise SpaceError(_unknown("torchvision", name, models.list_models()))
    settings: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # takes minutes
    if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
        settings["weights_backbone"] = None  # which are downloaded by default
    module = models.get_model(name, weights=None, **settings)
    known = models.get_model_weights(name)
    transforms = getattr(known.DEFAULT.transforms, "keywords", {})
    crop = transforms.get("crop_size", 224)
    size = crop[0] if isinstance(crop, list | tuple) else crop
    normalization = _normalization({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), **transforms})
    return ZooModule(module, (3, size, size), normalization)


def _unknown(package: str, name: str, known: Sequence[str]) -> str:
    return f"{package} has no network {name!r}{did_you_mean(name, known)}"


_ZOOS: dict[str, Callable[[str], ZooModule]] = {"timm": _of_timm, "torchvision": _of_torchvision}
"""The packages, and what makes a network of each."""
