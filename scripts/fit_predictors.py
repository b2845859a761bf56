"""Fits the predictors of data/predictors from the tables of data/latency, with their cards.

    python -m scripts.fit_predictors                     # all of them, from the root of the checkout: minutes
    python -m scripts.fit_predictors pixel4-cpu --check  # one

With --check nothing is written; the exit code is 1 when a shipped file is not what this script makes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netlathe.archspace.errors import FormatError
from netlathe.predictor import LatencyPredictor, Metrics, cross_validate, measure
from netlathe.predictor.blocks.residual import ResidualChoice, Weights
from netlathe.predictor.catalogue import Card, read_card
from netlathe.predictor.features.samples import is_network
from netlathe.predictor.files import FILE_KIND, FILE_VERSION, write_model
from netlathe.predictor.folds import configuration_folds
from netlathe.pricing import Priced
from scripts.shipped import RECIPES, Recipe, Table

FOLDER = Path(__file__).parents[1] / "data" / "predictors"
FOLDS = 5
SAME = 1e-3
"""Predictions that differ by less than this, in parts, count as the same: linear algebra varies between processors."""


def fit(recipe: Recipe, table: Table, residual: ResidualChoice | Weights = "auto") -> LatencyPredictor:
    """The estimator as any user gets it: nothing is tuned to a table."""
    return LatencyPredictor(residual).fit(table.items, table.latency_ms, setup=recipe.setup)


def weights_of(model: LatencyPredictor) -> Weights:
    """Weights of the residuals that a fit without a prior took."""
    weights = model.model_.residual_weights
    assert weights is not None
    return weights


def accuracy(recipe: Recipe, table: Table, residual: Weights) -> dict[str, Metrics]:
    """By what is held out, in words. The residuals are those that the fit to all rows chose."""
    blocks = {"configuration": table.kind, "stage": "channels and strides", "larger": "the larger half of input sizes"}
    whole = [is_network(item) for item in table.items]
    words = {"network": "networks"} if all(whole) else {"configuration": table.kind} if any(whole) else blocks
    found = cross_validate(
        table.items, table.latency_ms, setup=recipe.setup, residual=residual, splits=list(words), folds=FOLDS
    )
    metrics = {words[split]: predictions.metrics for split, predictions in found.splits.items()}
    if any(whole) and not all(whole):
        return {"networks": _networks_with_their_kernels(recipe, table, residual), **metrics}
    return metrics


def _networks_with_their_kernels(recipe: Recipe, table: Table, residual: Weights) -> Metrics:
    """Errors on networks held out, and with them all kernels that were measured in them."""
    owners = np.array(table.owners)
    parts: list[NDArray[np.float64]] = []
    names = [owner if is_network(item) else None for owner, item in zip(table.owners, table.items, strict=True)]
    for test in configuration_folds(names, FOLDS, seed=0):
        model = fit(recipe, table.take(np.flatnonzero(~np.isin(owners, owners[test]))), residual)
        held_out = table.take(test[model.knows(table.take(test).items)])
        interval = model.predict_interval(held_out.items, 0.9)
        parts.append(np.stack([held_out.latency_ms, model.predict(held_out.items), *interval]))
    return measure(*np.concatenate(parts, axis=1))


def make(name: str, folder: Path) -> Path:
    """Fits, judges, and writes the file."""
    recipe = RECIPES[name]
    table = recipe.read()
    model = fit(recipe, table)
    counts = {table.kind: model.n_blocks_, "networks": model.n_networks_}
    card = Card(
        recipe.name, recipe.summary, recipe.source, recipe.license, recipe.setup,
        {kind: count for kind, count in counts.items() if count},
        accuracy(recipe, table, weights_of(model)),
        recipe.limits, asdict(Priced.of(model)),
    )  # fmt: skip
    path = folder / f"{recipe.name}.json"
    write_model(path, FILE_KIND, FILE_VERSION, model.to_json(), card.to_json())
    return path


def differences(made: Path, shipped: Path) -> list[str]:
    """In what the shipped file is not the one just made, in words."""
    items = RECIPES[made.stem].read().items
    try:
        new, old = (LatencyPredictor.load(path).predict(items) for path in (made, shipped))
        new_card, old_card = read_card(made), read_card(shipped)
    except FormatError as error:
        return [str(error)]
    off = float(np.abs(new / old - 1).max())
    found = [f"its predictions are up to {100 * off:.2g} % off"] if off > SAME else []
    return found if _same(new_card, old_card) else [*found, "its card differs"]


def _same(one: Card, other: Card) -> bool:
    """Up to a percent in the accuracy: a prediction on the edge of 10 % may fall to either side."""
    if replace(one, accuracy={}) != replace(other, accuracy={}) or one.accuracy.keys() != other.accuracy.keys():
        return False
    pairs = [(one.accuracy[words], other.accuracy[words]) for words in one.accuracy]
    return all(np.allclose(astuple(a), astuple(b), rtol=0, atol=0.01) for a, b in pairs)


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *RECIPES], default=[], metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--check", action="store_true", help="only say whether the shipped files are up to date")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many to fit side by side")
    options = parser.parse_args(arguments)
    names, stale = options.names or list(RECIPES), 0
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(options.jobs) as pool:
        folder = Path(scratch) if options.check else FOLDER
        for name, path in zip(names, pool.map(partial(make, folder=folder), names), strict=True):
            found = differences(path, FOLDER / path.name) if options.check else []
            stale += bool(found)
            lines = [f"{name}: {path.stat().st_size / 1e3:.0f} kB", *found]
            lines += [f"{words}: {metrics}" for words, metrics in read_card(path).accuracy.items()]
            print("\n  ".join(lines), flush=True)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
