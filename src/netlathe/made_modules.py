"""Networks that Python code makes: timm:NAME and torchvision:NAME with random weights, of which nothing is downloaded,
and FILE.py:FUNCTION of the user's own."""

from __future__ import annotations

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from netlathe.archspace.errors import FormatError, SpaceError, did_you_mean

if TYPE_CHECKING:
    import torch

    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.archspace.graph import Graph
    from netlathe.training import Normalization

_OWN_CODE = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")


class MadeModule(NamedTuple):
    """A torch module, or exported program, that other code made."""

    module: torch.nn.Module | torch.export.ExportedProgram
    inputs: ExampleInputs | None
    """Its arguments; None for a program, which knows."""
    normalization: Normalization | None
    """How it takes images, where its code tells."""
    has_random_weights: bool


def is_made_name(what: str) -> bool:
    """Whether it names what makes a network: one of another package, or a function in a Python file."""
    return what.partition(":")[0] in _ZOOS or _OWN_CODE.fullmatch(what) is not None


def check_made(what: str) -> None:
    """Raises FormatError where the package or the file that makes it is not there."""
    package, own = what.partition(":")[0], _OWN_CODE.fullmatch(what)
    if own is not None and not Path(own["path"]).is_file():
        raise FormatError(f"{own['path']}: there is no such file")
    if own is None and find_spec(package) is None:
        raise FormatError(f"{what}: {package} is not installed: pip install {package}")


def made_graph(what: str, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph of timm:NAME, torchvision:NAME or FILE.py:FUNCTION, on inputs as `made_module` takes them.

    Raises as made_module does, and FormatError where torch cannot export the network.
    """
    from netlathe.archspace.forms.torch_program import read_module, read_program

    made = made_module(what, batch=batch, shapes=shapes)
    try:
        if made.inputs is None:
            return read_program(made.module)  # type: ignore[arg-type]
        return read_module(made.module, made.inputs)  # type: ignore[arg-type]
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error


def made_module(what: str, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None) -> MadeModule:
    """The torch module of timm:NAME, torchvision:NAME or FILE.py:FUNCTION.

    A module of another package takes a batch of images of the size that it was made for, one of FILE.py what the
    function returns beside it; the one shape (N, C, H, W) of `shapes` overrules both. Raises FormatError where the
    package is not installed, the file or its function is missing or fails or returns something else, or nothing tells
    the size; SpaceError for a name that the package does not know.
    """
    check_made(what)
    package, _, name = what.partition(":")
    import torch

    sizes = _only(what, shapes) if shapes else None
    own = _OWN_CODE.fullmatch(what)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # drawn weights are no one else's affair
        if own is not None:
            return _of_function(Path(own["path"]), own["function"], sizes)
        warnings.simplefilter("ignore")
        return _of_zoo(_ZOOS[package](name), batch, sizes)


def _only(what: str, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """The shape of the only input."""
    if len(shapes) > 1:
        raise FormatError(
            f"{what}: takes one --shape, that of its only input; a function may return all example inputs"
        )
    return tuple(next(iter(shapes.values())))


class ZooModule(NamedTuple):
    """A torch module of another package."""

    module: Any
    image: tuple[int, int, int]
    """(channels, height, width) of the images that it takes."""
    normalization: Normalization | None
    """How it takes them, where the package tells."""


def _of_zoo(found: ZooModule, batch: int, sizes: tuple[int, ...] | None) -> MadeModule:
    import torch

    return MadeModule(found.module, torch.zeros(sizes or (batch, *found.image)), found.normalization, True)


def _of_function(path: Path, name: str, sizes: tuple[int, ...] | None) -> MadeModule:
    """Outcome of the function of a Python file: a module, a pair of it and its example inputs, or a program."""
    import torch

    found = _called(path, name)
    module, inputs = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if isinstance(module, torch.export.ExportedProgram) and inputs is None:
        if sizes is not None:
            raise FormatError(f"{path}:{name}: an exported program has its sizes; leave --shape out")
        return MadeModule(module, None, None, False)
    if not isinstance(module, torch.nn.Module):
        raise FormatError(
            f"{path}:{name}: must return a torch module, a pair (module, example inputs) or an exported program, "
            f"got {found!r:.60}"
        )
    inputs = torch.zeros(sizes) if sizes is not None else inputs
    if inputs is None:
        raise FormatError(
            f"{path}:{name}: nothing tells the size of its input: return (module, torch.zeros(1, 3, 224, 224)), "
            "or say --shape 1x3x224x224"
        )
    return MadeModule(module, inputs, own_normalization(module), False)


def _called(path: Path, name: str) -> Any:
    """Result of a function of the file, which runs as if Python had been called with it, but for its `__main__`."""
    spec = spec_from_file_location(f"_netlathe_own_{path.stem}", path)
    assert spec is not None, "its name ends in .py"
    assert spec.loader is not None
    code = module_from_spec(spec)
    with _importable(path.parent):
        sys.modules[spec.name] = code  # dataclasses look their module up
        try:
            spec.loader.exec_module(code)
            function = getattr(code, name, None)
            if callable(function):
                return function()
        except (Exception, SystemExit) as error:
            lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if at.filename == str(path)]
            place = f"line {lines[-1]}: " if lines else ""
            raise FormatError(f"{path}: {place}{type(error).__name__}: {error}") from error
    known = [key for key, value in vars(code).items() if callable(value) and not key.startswith("_")]
    raise FormatError(f"{path}: has no function {name!r}{did_you_mean(name, known)}")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder's modules can be imported, as those beside a script can."""
    before = [*sys.path]
    sys.path.insert(0, str(folder.resolve()))
    try:
        yield
    finally:
        sys.path[:] = before


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
