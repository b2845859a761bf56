"""Content of a predictor: what it was fitted on, what was held out, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlathe.archspace.records import Setup
from netlathe.predictor.catalogue import Card, predictor_path
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, ModelFile, read_held_out, read_made, read_model
from netlathe.predictor.predictor import LatencyPredictor
from netlathe.predictor.validation.crossval import CrossValidation


@dataclass(frozen=True)
class PredictorContent:
    """A predictor's file."""

    name: str
    path: Path
    setup: Setup
    counts: Mapping[str, int]
    """Items that it was fitted on."""
    facts: tuple[tuple[str, str], ...]
    """How it was fitted."""
    validation: CrossValidation | None
    """Held-out predictions; None where its file has none."""
    card: Card | None
    made: Mapping[str, Any] | None = None
    """Command and versions that fitted it; None where its file does not tell."""


def read_predictor(given: str | Path) -> PredictorContent:
    """A predictor's file, or a shipped one's by name. Raises FormatError."""
    path = predictor_path(given)
    model = LatencyPredictor.load(path)
    validation = read_held_out(path, FILE_KIND, FILE_VERSION, CrossValidation.from_json)
    card = read_model(path, FILE_KIND, FILE_VERSION, _card)
    return PredictorContent(
        card.name if card else path.name,
        path,
        model.setup_,
        {"blocks": model.n_blocks_, "networks": model.n_networks_},
        _facts(model),
        validation,
        card,
        read_made(path, FILE_KIND, FILE_VERSION),
    )


def _card(file: ModelFile) -> Card | None:
    return None if file.card is None else Card.from_json(file.card)


def _facts(model: LatencyPredictor) -> tuple[tuple[str, str], ...]:
    rows = [("residual", model.residual_), ("seed", str(model.random_state))]
    if model.prior_share_:
        rows.append(("share of known devices", f"{100 * model.prior_share_:.0f} %"))
    if networks := model.model_.networks:
        rows.append(
            (
                "a network",
                f"{networks.slope:.4f} x its blocks {1e3 * networks.offset_ms:+.3g} us "
                f"{1e3 * networks.ms_per_weight_mb:+.3g} us per MB of weights "
                f"{1e3 * networks.ms_per_block:+.3g} us per block",
            )
        )
    return tuple(rows)
