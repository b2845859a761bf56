"""Last but one phase of a compression: the network is written in every form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.files import write_whole, writing
from netlathe.archspace.precisions import Precision
from netlathe.compress.precision import check_precisions
from netlathe.runs.compression.recovered import Recoverer, WriteFile
from netlathe.runs.compression.scored import Scored
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.shaped import Shaped, ShapedNetwork
from netlathe.runs.compression.tuned import Tuned
from netlathe.runs.exported import ExportedFiles, FilesPhase, export_network
from netlathe.runs.files import (
    FINE_TUNING,
    NETWORK,
    NETWORK_INT8,
    NETWORK_MIXED,
    NETWORK_ONNX,
    PROGRAM,
    WEIGHTS,
    save_weights,
)
from netlathe.runs.folder import Workplace
from netlathe.runs.report import Recovery

if TYPE_CHECKING:
    from netlathe.archspace.forms.interface import Interface
    from netlathe.archspace.forms.tflite_int8 import Range
    from netlathe.archspace.forms.torch import TorchGraph
    from netlathe.archspace.forms.weights import FloatArray, Weights
    from netlathe.archspace.graph import Graph
    from netlathe.training import ImageData


class WritePhase(FilesPhase):
    """The compressed network as .tflite, .onnx and torch program, and its weights as plain arrays."""

    needs, is_shared = (NETWORK, NETWORK_INT8, NETWORK_MIXED, NETWORK_ONNX, PROGRAM, WEIGHTS), True

    def __init__(
        self,
        settings: CompressSettings,
        place: Workplace,
        inputs: Mapping[str, Any],
        scored: Scored,
        shaped: Shaped,
        tuned: Tuned | None,
    ) -> None:
        super().__init__(place, inputs)
        self.settings, self.scored, self.shaped, self.tuned = settings, scored, shaped, tuned

    def work(self) -> ExportedFiles:
        """Raises FormatError where the network has no such form."""
        self.place.folder.make()
        if self.tuned is None:
            return self.place.ranks.told(self._structure)
        assert self.settings.data is not None
        network = self.tuned.network()
        made = self._recovered(network, self.settings.data) if self.settings.max_drop else {}
        contents, recoveries = {form: one[0] for form, one in made.items()}, tuple(one[1] for one in made.values())
        interface = self.settings.original.interface
        found = export_network(network, self.settings.data, self.place, int8=contents.get("int8"), interface=interface)
        found = self.place.ranks.told(lambda: self._with_mixed(found, network, contents.get("mixed")))
        program = self.place.ranks.told(lambda: write_program(network, self.place.path / PROGRAM, interface))
        files = {**found.files, "program": program, "weights": WEIGHTS}
        if self.scored.teacher == "own":  # the images' classes are not the model's
            return ExportedFiles({}, files, (), recoveries=recoveries)
        return replace(found, files=files, recoveries=recoveries)

    def _recovered(self, network: TorchGraph, data: ImageData) -> dict[str, tuple[bytes, Recovery]]:
        """Contents of the files in int8 that lose no more than is asked, and how they came about, by form."""
        from netlathe.archspace.forms.tflite import write_tflite
        from netlathe.archspace.forms.torch import folded_weights

        recoverer = Recoverer(self.settings, data, self.place, is_own=self.scored.teacher == "own")
        whole, weights = network.graph, folded_weights(network)
        plans: dict[str, tuple[Graph, WriteFile]] = {
            "int8": (whole, lambda given, ranges: write_tflite(whole, given, dtype="int8", ranges=ranges))
        }
        if self.settings.space.is_mixed(self.shaped.choices):
            graph = self.settings.space.graph(self.shaped.choices)
            plans["mixed"] = graph, lambda given, ranges: self._mixed(given, ranges=ranges)
        return {
            form: recoverer.recovered(form, graph, weights, write, self.checkpointer(FINE_TUNING[form]))
            for form, (graph, write) in plans.items()
        }

    def _with_mixed(self, found: ExportedFiles, network: TorchGraph, content: bytes | None) -> ExportedFiles:
        """The files, and the one in the precisions that were chosen, judged on the test images; `content` is that one's
        where there is one already."""
        from netlathe.archspace.forms.torch import folded_weights
        from netlathe.exporting import calibration, judged_file

        data, path = self.settings.data, self.place.path / NETWORK_MIXED
        if data is None or not self.settings.space.is_mixed(self.shaped.choices):
            return found
        with self.place.listener.working("exporting it in its precisions, and checking that on the test images"):
            write_whole(path, content or self._mixed(folded_weights(network), calibration(data.train)))
            accuracy, warning = judged_file(path, "tflite", "int8", data.test, found.accuracy["torch"])
        accuracies = {**found.accuracy, **({} if accuracy is None else {"mixed": accuracy})}
        warnings = (*found.warnings, *([warning] if warning else []))
        return replace(found, accuracy=accuracies, files={**found.files, "mixed": path.name}, warnings=warnings)

    def _mixed(
        self,
        weights: Weights,
        samples: Iterable[Sequence[FloatArray]] | None = None,
        ranges: Mapping[str, Range] | None = None,
    ) -> bytes:
        """The .tflite file in the precisions that were chosen. Raises CompressError where it computes in others."""
        from netlathe.archspace.forms.tflite import write_tflite

        space, choices = self.settings.space, self.shaped.choices
        content = write_tflite(space.graph(choices), weights, samples=samples, ranges=ranges)
        check_precisions(content, space.segments_at(choices, space.shaped_graph(choices)), space.plan(choices))
        return content

    def _structure(self) -> ExportedFiles:
        """Files of the widths alone, with the weights of the channels that are kept."""
        from netlathe.archspace.forms.onnx import write_onnx
        from netlathe.archspace.forms.tflite import write_tflite
        from netlathe.archspace.forms.torch import TorchGraph, load_weights

        folder = self.place.path
        graph, weights = ShapedNetwork(self.settings, self.shaped.choices).pruned(self.scored)
        with self.place.listener.working("exporting"):
            write_whole(folder / NETWORK, write_tflite(graph, weights))
            interface = self.settings.original.interface
            write_whole(folder / NETWORK_ONNX, write_onnx(graph, weights, interface=interface))
            is_mixed = self.settings.space.is_mixed(self.shaped.choices)
            if is_mixed:  # scales are found on random values: they suit measuring
                write_whole(folder / NETWORK_MIXED, self._mixed(weights))
            network = TorchGraph(graph)
            load_weights(network, weights)
            save_weights(folder, network)
            program = write_program(network.eval(), folder / PROGRAM, interface)
        files = {"tflite": NETWORK, "onnx": NETWORK_ONNX, "program": program, "weights": WEIGHTS}
        if not is_mixed:
            return ExportedFiles({}, files, ())
        in_int8 = Precision.INT8 in self.settings.space.plan(self.shaped.choices).values()
        warning = f"without images, the int8 scales of {NETWORK_MIXED} are of random values: time it, and do not use it"
        return ExportedFiles({}, {**files, "mixed": NETWORK_MIXED}, (warning,) if in_int8 else ())


def write_program(network: TorchGraph, path: Path, interface: Interface | None) -> str:
    """Writes a network in eval mode as a program of torch.export with these inputs and outputs, whole or not at all.

    Returns the file's name. Raises FormatError with torch's own reason where torch cannot export it.
    """
    from netlathe.archspace.forms.torch_program import save_program

    with writing(path, makes_folder=False) as part:
        save_program(network, part, interface)
    return path.name
