"""The predictors that ship in data/predictors, by name, each with a card: its source, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from netlathe.archspace.errors import FormatError
from netlathe.archspace.records import Setup
from netlathe.archspace.resources import data_files
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, ModelFile, find_file, read_model
from netlathe.predictor.validation.metrics import Metrics


@dataclass(frozen=True)
class Card:
    """The card of a shipped predictor: its source, accuracy and limits. Its texts are plain sentences."""

    name: str
    summary: str
    source: str
    """Address of the measurements."""
    license: str
    """License of the measurements."""
    setup: Setup
    counts: Mapping[str, int]
    """Numbers of items that it was fitted on, such as {"blocks": 1788, "networks": 0}."""
    accuracy: Mapping[str, Metrics]
    """Held-out accuracy, by the split in words; the first is the one to quote."""
    limits: tuple[str, ...]
    """Limits of its knowledge."""
    prices: Mapping[str, tuple[str, ...]] | None = None
    """Fields of netlathe.pricing.Priced, by name; None where nobody has found them out."""

    def to_json(self) -> dict[str, Any]:
        texts = {"setup": self.setup.to_json(), "limits": list(self.limits)}
        prices = {} if self.prices is None else {"prices": {name: list(found) for name, found in self.prices.items()}}
        return {**{name: value for name, value in asdict(self).items() if name != "prices"}, **texts, **prices}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The object that to_json wrote. Raises ValueError, KeyError, TypeError, AttributeError or RecordError on
        anything that is not a card."""
        texts = {name: data[name] for name in ("name", "summary", "source", "license")}
        told = data.get("prices")
        prices = None if told is None else {str(name): tuple(found) for name, found in told.items()}
        words = (word for found in (prices or {}).values() for word in found)
        if not all(type(text) is str and text.isprintable() for text in (*texts.values(), *data["limits"], *words)):
            raise ValueError("a card's texts must be printable")
        if not data["accuracy"]:
            raise ValueError("a card must tell how accurate its predictor is")
        return cls(
            **texts,
            setup=Setup.from_json(data["setup"]),
            counts={kind: int(count) for kind, count in data["counts"].items()},
            accuracy={split: _metrics(metrics) for split, metrics in data["accuracy"].items()},
            limits=tuple(data["limits"]),
            prices=prices,
        )


def _metrics(data: Mapping[str, Any]) -> Metrics:
    return Metrics(n=int(data["n"]), **{name: float(value) for name, value in data.items() if name != "n"})


def shipped_names() -> list[str]:
    """Names of the predictors that ship, as LatencyPredictor.load takes them beside paths."""
    return [path.stem for path in data_files("predictors", ".json")]


def predictor_path(path: str | Path) -> Path:
    """Path of a predictor's file, or of the shipped one of that name. Raises FormatError, listing the names, when there
    is neither."""
    return find_file(path, "predictors")


def read_card(path: str | Path) -> Card:
    """The card of a shipped predictor, by name or path. Raises FormatError for a file that is damaged or has none."""

    def build(file: ModelFile) -> Card | None:
        return None if file.card is None else Card.from_json(file.card)

    card = read_model(predictor_path(path), FILE_KIND, FILE_VERSION, build)
    if card is None:
        raise FormatError(f"{path}: this predictor has no card; its profile and `netlathe fit` tell what it is")
    return card
