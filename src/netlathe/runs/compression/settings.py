"""Settings of a compression: the model as it was read, and all else that the outcome depends on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.files import digest
from netlathe.archspace.graph import Graph
from netlathe.archspace.precisions import unmixed
from netlathe.compress.joint import JointSpace, joint_space
from netlathe.made_modules import is_made_name, made_module, own_normalization
from netlathe.reading import read_trained
from netlathe.runs.compression.strategies import INTEGER_PROGRAM, check_strategy
from netlathe.runs.judges import DeviceAtHand
from netlathe.runs.searched import describe_data
from netlathe.runs.settings import Recipe, name_of
from netlathe.subjects import find_subject
from netlathe.targets import KIB, Goal

if TYPE_CHECKING:
    import torch

    from netlathe.archspace.forms.interface import Interface
    from netlathe.archspace.forms.torch_program import ExampleInputs
    from netlathe.archspace.forms.weights import Weights
    from netlathe.archspace.spaces import Architecture
    from netlathe.search.costs import LatencyModel
    from netlathe.search.successive import CostLimit
    from netlathe.training import ImageData, Normalization, TrainConfig

Model = Union[str, Path, "torch.nn.Module", "torch.export.ExportedProgram"]
"""A model to compress: a .onnx or .tflite file, the name of what makes it (`is_made_name`), or the object itself."""
ModuleScore = Callable[["torch.nn.Module"], float]
"""How good a network is, the higher the better; a user's own, called with the network as a torch module."""


@dataclass(frozen=True)
class Original:
    """The user's model, read and never written to."""

    name: str
    graph: Graph
    weights: Weights
    at_batch: Callable[[int], Graph] | None = None
    """Reads the graph for another batch, where the model leaves it open."""
    notes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    """How it takes images, where it tells."""
    interface: Interface | None = None
    """Its inputs and outputs, which its .onnx and its torch program get; None for those of the graph's own forms."""

    @cached_property
    def digest(self) -> str:
        """Digest of its ops and its weights."""
        arrays = sorted((node, key, array) for node, kept in self.weights.items() for key, array in kept.items())
        parts = (f"{node}/{key}/{digest(array.tobytes())}" for node, key, array in arrays)
        ends = "" if self.interface is None else repr(self.interface)
        return digest(self.graph.key + "".join(parts) + ends)


def read_original(
    model: Model, example_inputs: ExampleInputs | None, shapes: Mapping[str, Sequence[int]] | None
) -> Original:
    """The model with its weights. Raises as `read_weights` does."""
    if isinstance(model, str) and is_made_name(model):
        made = made_module(model, shapes=shapes)
        graph, weights, interface = read_trained(made.module, made.inputs)
        notes = _shared(weights)
        if made.has_random_weights:
            notes = (f"{model} has random weights: only its structure is worth anything until it is trained", *notes)
        return Original(model, graph, weights, notes=notes, normalization=made.normalization, interface=interface)
    graph, weights, interface = read_trained(model, example_inputs, shapes=shapes)
    notes = _shared(weights)
    if not isinstance(model, str | Path):
        return Original(
            type(model).__name__, graph, weights, notes=notes, normalization=own_normalization(model),
            interface=interface,
        )  # fmt: skip
    path = Path(model)
    return Original(
        path.stem, unmixed(graph), weights, lambda batch: find_subject(path, batch=batch, shapes=shapes).graph, notes,
        interface=interface,
    )  # fmt: skip


def _shared(weights: Weights) -> tuple[str, ...]:
    """Words on layers that share their weights: one array, or one module that is called several times."""
    users: dict[str, list[str]] = {}
    for node, kept in weights.items():
        kernel = kept.get("kernel")
        if kernel is not None and kernel.size and kernel.min() < kernel.max():  # else it was never trained
            users.setdefault(digest(f"{kernel.shape}".encode() + kernel.tobytes()), []).append(node)
    return tuple(
        f"{', '.join(nodes)} share their weights; they are cut and trained as layers with weights of their own"
        for nodes in users.values()
        if len(nodes) > 1
    )


@dataclass(frozen=True)
class CompressSettings:
    """Everything that a compression's outcome depends on."""

    original: Original
    goal: Goal
    data: ImageData | None
    training: TrainConfig | Recipe | None
    """None where there are no images."""
    ignored: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    leave_out: bool = False
    step: int = 8
    least_share: float = 0.25
    strategy: str = INTEGER_PROGRAM
    looks: int = 100
    finalists: int = 8
    distillation: float = 0.5
    temperature: float = 4.0
    score: ModuleScore | None = None
    device: DeviceAtHand | None = None
    seed: int = 0
    normalization: Normalization | None = None
    """How the model takes images; None to find out."""
    max_drop: float | None = None
    """Points of accuracy that a file in int8 may lose against float32; None for as many as it does."""
    baselines: tuple[Architecture, ...] = ()
    """Networks to train and time beside the result."""

    def __post_init__(self) -> None:
        for name, value, is_right in (
            ("distillation", self.distillation, 0 <= self.distillation <= 1),
            ("temperature", self.temperature, 0 < self.temperature < float("inf")),
            ("finalists", self.finalists, self.finalists >= 1),
            ("looks", self.looks, self.looks >= 1),
        ):
            if not is_right:
                raise NetlatheError(f"{name} {value!r:.40}: out of range")
        check_strategy(self.strategy)

    @property
    def is_balanced(self) -> bool:
        """Whether all classes of the images count alike in losses, however many images each has."""
        from netlathe.training import TrainConfig

        return isinstance(self.training, TrainConfig) and self.training.class_weights == "balanced"

    def taking_images(self, normalization: Normalization | None) -> CompressSettings:
        """These settings, with images given to networks in that way."""
        if self.data is None or normalization is None:
            return self
        return replace(self, data=self.data.normalized(normalization))

    @cached_property
    def space(self) -> JointSpace:
        """The widths, blocks and precisions to choose from. Raises CompressError for layers to ignore that there are
        not, for unknown precisions, and for settings out of range."""
        original = self.original
        return joint_space(
            original.graph, original.name, precisions=self.precisions, step=self.step, least_share=self.least_share,
            ignored=self.ignored, leave_out=self.leave_out, at_batch=original.at_batch,
        )  # fmt: skip

    def check_prices(self) -> None:
        """Raises NetlatheError for precisions that a target's predictor does not price, before any work."""
        from netlathe.predictor import MixedPredictor

        if len(self.space.precisions) < 2:
            return
        for target in self.goal.targets:
            if isinstance(target.model, MixedPredictor):
                target.model.check_prices(self.space.precisions)
            elif not target.model.tells_precisions_:
                others = "+".join(["FILE"] * len({*self.space.precisions} & {"int8", "int8-weights"}))
                raise NetlatheError(
                    f"--precisions {','.join(self.precisions)}: {target.name} prices one dtype alone; give a predictor "
                    f"of the same device for each other one, --target {target.name}+{others or 'FILE'}=MS"
                )

    def limits(self, models: Sequence[LatencyModel]) -> list[CostLimit]:
        """The goal's limits: each target by the model of its latency, then all others. Raises NetlatheError for a cost
        of blocks, which such a network has not."""
        from netlathe.search.successive import CostLimit

        goal = self.goal
        found = [
            CostLimit(f"latency on {one.name}", "ms", model, one.limit_ms, one.model.setup_.batch)
            for one, model in zip(goal.targets, models, strict=True)
        ]
        for limit in goal.limits:
            if limit.layers:
                found.append(CostLimit(f"{limit.name} by {limit.source}", limit.name, limit.layers, limit.value))
                continue
            if limit.source:
                raise NetlatheError(
                    f"--limit {limit.source}:{limit.name}: a table of blocks says nothing of a model's layers; give "
                    "one with the columns op, shape and bits, or limit macs, parameters or memory-kb"
                )
            found.append(CostLimit(limit.name, "", Count(limit.name), limit.value))
        if goal.memory_kib is not None:
            found.append(CostLimit("memory-kb", "KiB", Count("memory-kb", goal.itemsize), goal.memory_kib))
        if goal.size_kib is not None:
            found.append(CostLimit("size-kb", "KiB", FileSize(goal.model.setup_.dtype), goal.size_kib))
        return found

    @property
    def score_name(self) -> str | None:
        """The name of the user's own score; None without one."""
        return name_of(self.score) if self.score else None

    def importance_inputs(self) -> dict[str, Any]:
        """Inputs of the channels' importance, for JSON."""
        balanced = {"class_weights": "balanced"} if self.is_balanced else {}
        return {
            "model": self.original.digest,
            "widths": {"ignored": sorted(self.ignored), "step": self.step, "least_share": self.least_share},
            "data": describe_data(self.data) if self.data else None,
            "normalization": str(self.normalization) if self.normalization else None,
            "seed": self.seed,
            **balanced,
        }

    def space_inputs(self) -> dict[str, Any]:
        """Inputs of the decisions beside widths, for JSON."""
        return {"precisions": list(map(str, self.space.precisions)), "leave_out": self.leave_out}

    def written_inputs(self) -> dict[str, Any]:
        """Inputs of the files beside the choice and the training, for JSON."""
        return {} if self.max_drop is None else {"max_drop": self.max_drop}

    def choice_inputs(self) -> dict[str, Any]:
        """Inputs of the choice, for JSON."""
        looked = {} if self.strategy == INTEGER_PROGRAM else {"strategy": self.strategy, "looks": self.looks}
        return {
            **self.importance_inputs(),
            **self.space_inputs(),
            "goal": self.goal.to_json(),
            "finalists": self.finalists,
            "score": self.score_name,
            "judge": self.device.to_json() if self.device else None,
            **looked,
        }


@dataclass(frozen=True)
class Count:
    """Cost model of what a graph counts: `macs`, `parameters`, or `memory-kb`, KiB of activations alive at once."""

    name: str
    itemsize: int = 4

    def predict(self, items: Sequence[Graph]) -> Any:
        """The count of each graph."""
        import numpy as np

        counts = {
            "macs": lambda graph: graph.macs,
            "parameters": lambda graph: graph.parameters,
            "memory-kb": lambda graph: graph.peak_activation_bytes(self.itemsize) / KIB,
        }
        return np.array([counts[self.name](graph) for graph in items], float)


SLACK = 1.01
"""Times that the size of a file is counted: what is foretold of it is about right."""


@dataclass(frozen=True)
class FileSize:
    """Cost model of the size of a network's .tflite file in KiB, which has that dtype where its graph has no precisions
    of its own."""

    dtype: str

    def predict(self, items: Sequence[Graph]) -> Any:
        """The size of each graph's file in KiB, at most."""
        import numpy as np

        from netlathe.archspace.forms.tflite_size import tflite_bytes

        dtype = self.dtype if self.dtype == "int8" else "float32"
        return np.array([SLACK * tflite_bytes(graph, dtype) / KIB for graph in items], float)


def name_all(ignored: str | Collection[str]) -> tuple[str, ...]:
    """Names of layers, of which one may be given alone."""
    return (ignored,) if isinstance(ignored, str) else tuple(ignored)
