"""Predictors by file or name, and what a user should know of what they predict before trusting it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netlathe.console import percent

if TYPE_CHECKING:
    from netlathe.archspace.blocks import Block
    from netlathe.archspace.graph import Graph
    from netlathe.predictor import LatencyPredictor

WIDE_INTERVAL = 4.0
"""High over low, from which on a prediction deserves a warning."""
_FORMS = {"float16": {"float32", "float16"}}
"""Dtypes of files that run in the setup's: what computes in float16 is given float32 files, too; others, their own."""


def load_predictor(name: Path | str, *, assume_unknown: bool = False) -> LatencyPredictor:
    """A predictor file, or a shipped one by name; with `assume_unknown`, one that refuses no op."""
    from netlathe.predictor import LatencyPredictor  # only where a predictor is wanted: scikit-learn takes a second

    model = LatencyPredictor.load(name)
    return model.assuming() if assume_unknown else model


@contextmanager
def naming_others(predictor: Path | str, graphs: Iterable[Graph]) -> Iterator[None]:
    """Where a shipped predictor does not know all ops of the graphs, the error names the shipped ones that do."""
    from netlathe.predictor import LatencyPredictor, UnknownOpError, shipped_names

    try:
        yield
    except UnknownOpError as error:
        if str(predictor) not in shipped_names() or Path(predictor).is_file():
            raise
        items = list(graphs)
        others = [name for name in shipped_names() if LatencyPredictor.load(name).knows(items).all()]
        known = f"all ops of it are known to {', '.join(others)}" if others else "no other knows all ops of it either"
        raise UnknownOpError(f"{error}. Of the predictors that ship, {known}") from error


def doubts(model: LatencyPredictor, name: str, graph: Graph, dtype: str | None = None) -> list[str]:
    """Warnings on a prediction: where the predictor knows next to nothing about such a graph, where it holds ops that
    were never measured, and where the file's `dtype` is not the predictor's."""
    low, high = (float(bound[0]) for bound in model.predict_interval([graph]))
    found = list(other_dtype(model, name, dtype))
    found += unknown_ops(name, model.unknown_ops([graph])[0])
    if high > WIDE_INTERVAL * low:
        found.append(
            f"{name} is unlike what the predictor was fitted on, so its latency is little more than a guess; profile a "
            "space of its kind and size, and fit on that"
        )
    return found


def unknown_ops(name: str, shares: Mapping[str, float]) -> list[str]:
    """A warning where a prediction holds ops that were never measured, {op: its part of the latency at most}."""
    if not shares:
        return []
    told = ", ".join(f"{op} (at most {percent(share)} of the latency)" for op, share in shares.items())
    return [
        f"{name}: never measured on this setup and priced by what such work usually costs: {told}; the interval is "
        "wider for it"
    ]


def other_dtype(model: LatencyPredictor, name: str, dtype: str | None) -> Iterator[str]:
    """A warning where a file of that dtype is not what the predictor's setup runs. A graph has no dtype, so the
    prediction is of the same network in the setup's: to be asked for, but not to be taken for the file's."""
    runs = model.setup_.dtype
    if dtype is None or dtype in _FORMS.get(runs, {runs}):
        return
    yield (
        f"{name} computes in {dtype}, but the predictor was fitted on {runs}: this is the latency of the same network "
        f"in {runs}, not of this file; for the file, take a predictor fitted on a profile in {dtype}"
    )


@dataclass(frozen=True)
class Priced:
    """What a predictor has a latency for without assuming any."""

    networks: tuple[str, ...]
    """Published networks."""
    spaces: tuple[str, ...]
    """Preset spaces, all of whose blocks it knows."""
    blocks: tuple[str, ...]
    """Kinds of block of these networks and spaces; of each, all."""
    unknown_ops: tuple[str, ...]
    """Kinds of op that it has no cost of."""
    lacking: tuple[str, ...]
    """Those of them that published networks have."""

    @classmethod
    def by(cls, name: str) -> Priced:
        """Of a predictor file, or a shipped one by name."""
        from netlathe.archspace.networks import NETWORKS, network
        from netlathe.archspace.presets import PRESETS

        model = load_predictor(name)
        batch = model.setup_.batch
        networks = {one: network(one).graph(batch) for one in NETWORKS}
        spaces = {one: make().distinct_blocks() for one, make in PRESETS.items()}
        kinds: dict[str, list[Graph]] = {}
        for block in (block for blocks in spaces.values() for block in blocks):
            kinds.setdefault(_kind(block), []).append(block.graph(batch))
        graphs = {one: [block.graph(batch) for block in blocks] for one, blocks in spaces.items()}
        return cls(
            tuple(one for one, graph in networks.items() if model.knows([graph]).all()),
            tuple(one for one, found in graphs.items() if model.knows(found).all()),
            tuple(one for one, found in kinds.items() if model.knows(found).all()),
            model.model_.unknown_kinds,
            tuple(sorted({op for shares in model.unknown_ops(list(networks.values())) for op in shares})),
        )

    @property
    def word(self) -> str:
        """What fits a table."""
        if self.networks:
            return "networks, blocks"
        return f"{'blocks' if self.blocks else 'kernels'} (no {', '.join(self.lacking)})"

    @property
    def words(self) -> str:
        """The same at length."""
        parts = f"parts ({', '.join(self.blocks)} blocks)" if self.blocks else "single kernels"
        what = f"whole networks, as {', '.join(self.networks)}" if self.networks else parts
        spaces = f"; all blocks of the spaces {', '.join(self.spaces)}" if self.spaces else "; no preset space"
        lacking = "" if self.networks else f"; no published network, for want of {', '.join(self.lacking)}"
        unknown = f". Never measured: {', '.join(self.unknown_ops)}" if self.unknown_ops else ""
        return f"{what}{spaces}{lacking}{unknown}"


def _kind(block: Block) -> str:
    return block.name.partition("_")[0]
