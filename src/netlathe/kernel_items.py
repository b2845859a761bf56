"""Kernels, and networks of them, as a campaign's work: `netlathe profile --space kernels` and `--models`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netlathe.archspace.errors import NetlatheError, SpaceError
from netlathe.archspace.graph import Graph
from netlathe.archspace.kernel_space import KERNELS, Kernel, kernels_in, sample_kernels
from netlathe.archspace.kernels import Fusion, fusion_of
from netlathe.archspace.records import Setup
from netlathe.archspace.sampled_networks import sample_networks
from netlathe.subjects import Subject, find_subject
from netlathe.words import first_names

if TYPE_CHECKING:
    from netlathe.profiler.campaign import WorkItem

USUAL_KERNELS = 300
"""Kernels that a profile of the space has by default."""
_POOL = 1500
"""Kernels that those are chosen from."""


@dataclass(frozen=True)
class KernelSpace:
    """Kernels as convolutional networks have them, or, where there are `models`, the very kernels of these."""

    models: tuple[Subject, ...] = ()

    @property
    def name(self) -> str:
        return f"kernels of {first_names([model.name for model in self.models])}" if self.models else KERNELS

    @classmethod
    def of_models(cls, models: Sequence[str | Path | Graph], batch: int = 1) -> KernelSpace:
        """The kernels of these networks: names, files or graphs. Raises NetlatheError as find_subject does, and
        SpaceError where there are none."""
        if not models:
            raise SpaceError("models: name at least one network, .tflite or .onnx file")
        return cls(tuple(find_subject(model, batch=batch) for model in models))


class KernelWork(NamedTuple):
    """Graphs to choose from for one setup."""

    items: list[WorkItem]
    """Kernels, then whole networks."""
    groups: dict[str, str]
    """Class of each kernel, by the graph's key."""
    left_out: dict[str, str]
    """Classes of kernels that cannot be measured there, each with the reason."""


def kernel_work(space: KernelSpace, setup: Setup, *, networks: int, seed: int) -> KernelWork:
    """The kernels of the space that the setup's runtime can be given, and so many whole networks: the models, or
    sampled ones."""
    from netlathe.profiler.campaign import WorkItem

    kernels, left_out = _writable(_kernels(space, fusion_of(setup), setup, seed), setup)
    items = [WorkItem(kernel.name, "block", kernel.graph) for kernel in kernels]
    items += [WorkItem(name, "network", graph) for name, graph in _networks(space, networks, setup.batch, seed)]
    return KernelWork(items, {kernel.graph.key: kernel.group for kernel in kernels}, left_out)


def _kernels(space: KernelSpace, fusion: Fusion, setup: Setup, seed: int) -> list[Kernel]:
    if space.models:
        return kernels_in([model.graph for model in space.models], fusion=fusion)
    return sample_kernels(_POOL, batch=setup.batch, fusion=fusion, seed=seed, dtype=setup.dtype)


def _networks(space: KernelSpace, count: int, batch: int, seed: int) -> list[tuple[str, Graph]]:
    if space.models:
        return [(model.name, model.graph) for model in space.models[:count] if model.graph.is_network]
    return [(network.name, network.graph(batch)) for network in sample_networks(count, seed)]


def _writable(kernels: Sequence[Kernel], setup: Setup) -> tuple[list[Kernel], dict[str, str]]:
    """The kernels that have a form for the setup's runtime, and why the others have none: of each class and function,
    the smallest kernel tells."""
    write = _writer(setup)
    reasons: dict[str, str] = {}
    for variant in dict.fromkeys(map(_variant, kernels)):
        smallest = min((k.graph for k in kernels if _variant(k) == variant), key=lambda g: g.macs + g.bytes_read())
        if {shape[0] for shape in smallest.inputs} != {setup.batch}:
            continue
        try:
            write(smallest)
        except NetlatheError as error:
            reasons[variant] = str(error)
    fitting = [k for k in kernels if _variant(k) not in reasons]
    measurable = [k for k in fitting if {shape[0] for shape in k.graph.inputs} == {setup.batch}]
    if odd := [k.name for k in fitting if k not in measurable]:
        reasons["kernels of another batch"] = f"{first_names(odd)} take no batches of {setup.batch}"
    return measurable, reasons


def _variant(kernel: Kernel) -> str:
    """Class of a kernel with its function or mode, which one runtime has and another lacks."""
    op = kernel.graph.nodes[0].op
    settings = [getattr(op, name, "") for name in ("function", "mode")]
    return " ".join(map(str, filter(None, [kernel.group, *settings])))


def _writer(setup: Setup) -> Callable[[Graph], object]:
    """Writer of the form that the setup's runtime reads."""
    if setup.runtime == "onnxruntime":
        from netlathe.archspace.forms.onnx import write_onnx

        return write_onnx
    if setup.runtime in ("litert", "tflite"):
        from netlathe.archspace.forms.tflite import write_tflite

        dtype = setup.dtype if setup.dtype in ("int8", "int8-weights") else "float32"
        return lambda graph: write_tflite(graph, dtype=dtype)
    if setup.runtime == "torch":
        from netlathe.archspace.forms.torch import TorchGraph

        return TorchGraph
    return lambda graph: None  # a device of the user's own says itself what it takes
