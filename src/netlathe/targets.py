"""Goal of a search: latency targets on devices, and limits on other costs."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlathe.archspace.blocks import Block
from netlathe.archspace.errors import FormatError, NetlatheError, did_you_mean
from netlathe.archspace.files import check_plain, digest
from netlathe.archspace.spaces import SearchSpace
from netlathe.layer_costs import LayerTable, has_layers, read_cost, read_layer_table
from netlathe.pricing import Unknown, load_predictor

if TYPE_CHECKING:
    from netlathe.predictor import LatencyPredictor
    from netlathe.predictor.own_model import Predicts
    from netlathe.search.costs import Constraint, CostTable

KIB = 1024
_COUNTS = ("macs", "parameters", "memory-kb", "size-kb")
KNOWN_LIMITS = "macs=300e6, parameters=4e6, memory-kb=512, size-kb=800, or FILE.csv:COLUMN=VALUE"


@dataclass(frozen=True)
class Target:
    """At most `ms` on the device of a predictor: a file, the name of one that ships, the object, or anything with
    predict(graphs) -> ms; or by a .csv of layers' ms (layer_costs). `name` tells an object from others, in reports and
    between runs.

    `others` are predictors of the same device in other dtypes, int8 and int8-weights, which price the parts of a
    network that compute so; `predictor` then is of float32.
    """

    predictor: str | Path | LatencyPredictor | Predicts
    ms: float
    name: str = ""
    others: tuple[str | Path | LatencyPredictor, ...] = ()

    @property
    def file(self) -> str | None:
        """The file or shipped name."""
        return str(self.predictor) if isinstance(self.predictor, str | Path) else None

    @property
    def files(self) -> list[str]:
        """All files and shipped names."""
        return [str(one) for one in (self.predictor, *self.others) if isinstance(one, str | Path)]

    def load(self, name: str, unknown: Unknown) -> LatencyPredictor:
        """The predictor, one of several precisions where there are `others`. Raises as load_predictor and
        MixedPredictor do."""
        if self.file is not None and self.file.endswith(".csv") and not self.others:
            return load_predictor(read_layer_table(Path(self.file), "ms"), name=name)
        found = load_predictor(self.predictor, name=name, unknown=unknown)
        if not self.others:
            return found
        from netlathe.predictor import MixedPredictor

        return MixedPredictor(found, *(load_predictor(one, unknown=unknown) for one in self.others))


@dataclass(frozen=True)
class DeviceTarget:
    """At most `limit_ms` by the predictor of one device."""

    name: str
    """The shipped name, or the file's without its ending; after its folder's where two files are called the same."""
    model: LatencyPredictor
    """Predictor that refuses unknown ops, or assumes what they cost."""
    limit_ms: float

    def table(self, space: SearchSpace) -> CostTable:
        """Raises UnknownOpError for a space with blocks that the predictor knows nothing of, and names one."""
        from netlathe.predictor import UnknownOpError
        from netlathe.pricing import naming_others
        from netlathe.search.costs import CostTable

        blocks, batch = space.distinct_blocks(), self.model.setup_.batch
        try:
            with naming_others(self.name, (block.graph(batch) for block in blocks)):
                return CostTable.tabulate(space, self.model, batch=batch, name=f"latency on {self.name}")
        except UnknownOpError as error:
            known = self.model.knows([block.graph(batch) for block in blocks])
            unknown = [block.name for block, is_known in zip(blocks, known, strict=True) if not is_known]
            example = f", such as {unknown[0]}" if unknown else ""
            raise UnknownOpError(
                f"the predictor {self.name} cannot price {len(unknown)} of the {len(blocks)} blocks of space "
                f"{space.name}{example}: {error}"
            ) from error

    def doubts(self, space: SearchSpace) -> list[str]:
        """A warning where the space holds ops that were never measured and are assumed."""
        blocks = space.distinct_blocks()
        found = self.model.unknown_ops([block.graph(self.model.setup_.batch) for block in blocks])
        examples = {op: block.name for block, shares in zip(blocks, found, strict=True) for op in shares}
        if not examples:
            return []
        told = ", ".join(f"{op} (as in {name})" for op, name in examples.items())
        return [
            f"never measured for {self.name}, and priced by what such work usually costs: {told}; the intervals are "
            "wider for it"
        ]

    @cached_property
    def content(self) -> str:
        """A digest of the predictor."""
        return digest(json.dumps(self.model.to_json(), sort_keys=True))

    def to_json(self) -> dict[str, Any]:
        assumes = {"assumes_unknown": True} if self.model.assumes_ else {}
        return {"predictor": self.name, "content": self.content, "ms": self.limit_ms, **assumes}


@dataclass(frozen=True)
class Limit:
    """At most `value` of `macs`, `parameters`, `memory-kb` (KiB of activations alive at once), `size-kb` (KiB of the
    .tflite file; of compress alone), or `FILE.csv:COLUMN`, a cost per layer (layer_costs), or per block."""

    name: str
    value: float
    prices: Mapping[str, float] = field(default_factory=dict)
    """Cost by block name, where a table gives it."""
    source: str = ""
    """The table's file."""
    layers: LayerTable | None = None
    """Cost by layer, where the table is one of layers."""

    def price(self, block: Block) -> float:
        """Raises FormatError for a block that the table lacks; one that runs nothing costs nothing."""
        if self.layers:
            return float(self.layers.predict([block.graph()])[0])
        if not self.source:
            graph = block.graph()
            return float(graph.macs if self.name == "macs" else graph.parameters)
        if block.name in self.prices:
            return self.prices[block.name]
        if not block.graph().nodes:
            return 0.0
        raise FormatError(
            f"{self.source}: has no line for block {block.name}, which the space holds; measure it, or search a space "
            "without it"
        )

    def to_json(self) -> dict[str, Any]:
        content = self.layers.digest if self.layers else digest(json.dumps(sorted(self.prices.items())))
        return {"cost": self.name, "content": content, "value": self.value}


@dataclass(frozen=True)
class Goal:
    """All that a network has to meet. The first target is the main one: its device tells whether a network is fast."""

    targets: tuple[DeviceTarget, ...]
    limits: tuple[Limit, ...] = ()
    memory_kib: float | None = None
    size_kib: float | None = None
    """KiB of the .tflite file."""

    @property
    def main(self) -> DeviceTarget:
        return self.targets[0]

    @property
    def model(self) -> LatencyPredictor:
        return self.main.model

    def at(self, limit_ms: float) -> Goal:
        """Goal with another limit of the main target, in ms."""
        return replace(self, targets=(replace(self.main, limit_ms=limit_ms), *self.targets[1:]))

    def narrowed(self, space: SearchSpace) -> SearchSpace:
        """The space without what needs too much memory, in the main target's dtype. Raises TargetError when that leaves
        nothing."""
        from netlathe.search.costs import limit_memory

        limit = None if self.memory_kib is None else int(self.memory_kib * KIB)
        return space if limit is None else limit_memory(space, limit, itemsize=self.itemsize)

    @property
    def itemsize(self) -> int:
        """Bytes of an activation's value as it runs on the main target's device."""
        return 1 if self.model.setup_.dtype == "int8" else 4

    def constraints(self, space: SearchSpace) -> list[Constraint]:
        """One per target, then one per limit. Raises TargetError where no network meets all of them, and FormatError
        for a block that a table lacks."""
        from netlathe.search.costs import Constraint, CostTable
        from netlathe.search.decode import check_limits

        if self.size_kib is not None:
            raise NetlatheError(
                "--limit size-kb: of compress alone; limit parameters, which a file's size follows from"
            )
        found = [Constraint(target.table(space), target.limit_ms) for target in self.targets]
        found += [Constraint(CostTable.of_blocks(space, one.price, name=one.name), one.value) for one in self.limits]
        check_limits(space, found)
        return found

    def to_json(self) -> dict[str, Any]:
        """Description that tells this goal from any other, for JSON."""
        return {
            "targets": [t.to_json() for t in self.targets],
            "limits": [limit.to_json() for limit in self.limits],
            "memory_kib": self.memory_kib,
            **({} if self.size_kib is None else {"size_kib": self.size_kib}),
        }


def check_names(predictor: str | None, target_ms: float | None, several_ms: str | None, targets: Sequence[str]) -> None:
    """Raises NetlatheError for options that leave open what to meet, or contradict each other."""
    if target_ms is not None and several_ms is not None:
        raise NetlatheError("--target-ms and --targets say the same thing; give one of them")
    given = target_ms is not None or several_ms is not None
    if given and predictor is None:
        raise NetlatheError("--target-ms and --targets need the --predictor of the device that they are meant for")
    if predictor is not None and not given:
        raise NetlatheError(f"--predictor {predictor}: say in --target-ms what latency is to be met there")
    if predictor is None and not targets:
        raise NetlatheError("say what to meet: --predictor NAME --target-ms MS, or --target NAME=MS, once per device")


def parse_targets(predictor: str | None, target_ms: float | None, targets: Sequence[str]) -> list[Target]:
    """The targets of --predictor and --target-ms, and of --target PREDICTOR=MS, once check_names has passed them.
    Raises NetlatheError for what does not parse."""
    wanted = [] if predictor is None or target_ms is None else [Target(predictor, target_ms)]
    return wanted + [_parsed_target(one) for one in targets]


def _parsed_target(text: str) -> Target:
    """PREDICTOR=MS, or PREDICTOR+PREDICTOR=MS of one device in several dtypes, unless a file is called so."""
    name, ms = _assignment("--target", text, "PREDICTOR=MS, such as pixel4-cpu-networks=40")
    if "+" not in name or Path(name).is_file():
        return Target(name, ms)
    first, *others = name.split("+")
    if not all((first, *others)):
        raise NetlatheError(f"--target {text}: expected PREDICTOR+PREDICTOR=MS, of one device in float32 and in int8")
    return Target(first, ms, others=tuple(others))


def parse_limits(limits: Sequence[str], costs: Path | None = None) -> list[Limit]:
    """The limits of --limit, where a column of the table `costs` may be named alone. Raises NetlatheError for what does
    not parse, and for a table that nothing is limited by."""
    found = [Limit(*_assignment("--limit", text, KNOWN_LIMITS)) for text in limits]
    if costs is None:
        return found
    own = [one.name not in _COUNTS and ":" not in one.name for one in found]
    if not any(own):
        raise NetlatheError(f"--costs {costs}: say what it limits, as --limit mJ=3 of its column mJ")
    return [replace(one, name=f"{costs}:{one.name}") if is_own else one for one, is_own in zip(found, own, strict=True)]


def load_goal(
    predictor: str | None,
    target_ms: float | None,
    targets: Sequence[str],
    limits: Sequence[str],
    *,
    unknown: Unknown = "refuse",
) -> Goal:
    """The goal of the command's options. `unknown` is that of predict. Raises NetlatheError for
    what does not parse, FormatError for a predictor or table that cannot be read."""
    return make_goal(parse_targets(predictor, target_ms, targets), parse_limits(limits), unknown=unknown)


def make_goal(targets: Sequence[Target], limits: Sequence[Limit] = (), *, unknown: Unknown = "refuse") -> Goal:
    """All that a network has to meet, with predictors and tables read. Raises NetlatheError for targets or limits that
    are given twice or are no number above zero, FormatError for a predictor or table that cannot be read."""
    if not targets:
        raise NetlatheError("say what to meet: at least one target")
    for value in (*(target.ms for target in targets), *(limit.value for limit in limits)):
        if not (math.isfinite(value) and value > 0):
            raise NetlatheError(f"targets and limits are numbers above zero, not {value!r}")
    names = _names([target.name or target.file or f"device {number}" for number, target in enumerate(targets, 1)])
    loaded = tuple(
        DeviceTarget(name, target.load(name, unknown), target.ms) for name, target in zip(names, targets, strict=True)
    )
    for one, other in itertools.combinations(loaded, 2):
        if one.content == other.content:
            which = f"{one.name} is named twice" if one.name == other.name else f"{one.name} and {other.name} are equal"
            raise NetlatheError(f"--target: {which}; a device has one target")
    values: dict[str, Limit] = {}
    for limit in limits:
        if limit.name in values:
            raise NetlatheError(
                f"--limit {limit.name}: given twice, as {values[limit.name].value:g} and {limit.value:g}; keep one of "
                "them"
            )
        values[limit.name] = limit
    memory, size = values.pop("memory-kb", None), values.pop("size-kb", None)
    found = (limit if limit.prices else _limit(limit.name, limit.value) for limit in values.values())
    return Goal(loaded, tuple(found), memory.value if memory else None, size.value if size else None)


def _names(files: Sequence[str]) -> list[str]:
    """Names of predictors: their files' names without ending, with as many folders as tell them apart."""
    parts = [(*Path(file).parent.parts, Path(file).stem) for file in files]
    names = [p[-1] for p in parts]
    for depth in range(2, max((len(p) for p in parts), default=1) + 1):
        names = [name if names.count(name) == 1 else "/".join(p[-depth:]) for name, p in zip(names, parts, strict=True)]
    return names


def parse_milliseconds(text: str) -> list[float]:
    """'20,30,40' -> [20.0, 30.0, 40.0], rising. Raises NetlatheError for anything else."""
    values = sorted({_positive("--targets", part, text) for part in text.split(",")})
    if len(values) < 2:
        raise NetlatheError(f"--targets {text}: name at least two different targets, such as 20,30,40")
    check_curve(values)
    return values


def check_curve(targets_ms: Sequence[float]) -> None:
    """Raises NetlatheError for limits of one target, in ms, that are none, no numbers above zero, or that would share a
    folder."""
    if not targets_ms or not all(math.isfinite(ms) and ms > 0 for ms in targets_ms):
        raise NetlatheError(f"several targets are numbers above zero, not {list(targets_ms)!r}")
    for one, next_one in itertools.pairwise(sorted(targets_ms)):
        if folder_name(one) == folder_name(next_one):
            raise NetlatheError(
                f"--targets: {one!r} and {next_one!r} would share the folder {folder_name(one)}; targets differ in "
                "their first six digits"
            )


def folder_name(limit_ms: float) -> str:
    """20.5 -> '20.5ms': the folder of one of several targets."""
    return f"{limit_ms:g}ms"


def _assignment(option: str, text: str, known: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise NetlatheError(f"{option} {text}: expected {known}")
    return name, _positive(option, value, text)


def _positive(option: str, value: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise NetlatheError(f"{option} {text}: {value.strip() or 'nothing'} is not a number above zero")
    return number


def _limit(name: str, value: float) -> Limit:
    if name in ("macs", "parameters"):
        return Limit(name, value)
    file, colon, column = name.rpartition(":")
    if not colon or not file.endswith(".csv"):
        meant = did_you_mean(name, _COUNTS)
        raise NetlatheError(f"--limit {name}: unknown{meant}; known are {KNOWN_LIMITS}")
    if has_layers(Path(file)):
        return Limit(column, value, source=file, layers=read_layer_table(Path(file), column))
    return Limit(column, value, _read_prices(Path(file), column), file)


def _read_prices(path: Path, column: str) -> dict[str, float]:
    """{block name: cost} of a CSV. Raises FormatError for anything in it that is no cost."""
    try:
        check_plain(path)
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read as CSV ({error})") from error
    found = list(rows[0]) if rows else []
    for name in ("block", column):
        if name not in found:
            raise FormatError(f"{path}: has no column {name!r}, only {', '.join(map(str, found)) or 'no lines'}")
    prices: dict[str, float] = {}
    for line, row in enumerate(rows, start=2):
        block, text = row["block"], row[column]
        if not block:
            raise FormatError(f"{path}: line {line} names no block")
        if block in prices:
            raise FormatError(f"{path}: line {line} tells of block {block} again")
        prices[block] = read_cost(text, f"{path}: line {line}", column)
    return prices
