"""The last choice, by looking: networks within the limits are examined on validation images, and what each candidate
adds to their cross-entropy is fitted, so that the decode maximises quality and not how often a path was rewarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch.nn import functional as F

from netlathe.search.costs import Constraint, decode
from netlathe.search.parameters import Path, plain_gates
from netlathe.search.supernet import SuperNet
from netlathe.training.compute import Compute
from netlathe.training.images import ImageSplit, to_input
from netlathe.training.sgd import check_finite, parts_of

Examiner = Callable[[Path], float]
"""Cross-entropy of the network along a path, on the same images for all."""

OnLook = Callable[[int, int], None]
"""(networks examined, networks to examine)."""

BATCH = 256

FLOOR = -3.0
"""Log probabilities below this tell how long a search ran rather than how bad a candidate is."""

FEWEST = 8

UNPENALISED = 1e3
"""Scale of a column that ridge regression is to leave alone."""


def examiner(
    supernet: SuperNet, split: ImageSplit, images: int, compute: Compute, rng: np.random.Generator
) -> Examiner:
    """Examines by the supernet's weights on at most so many images of the split, drawn once; leaves the supernet as it
    is."""
    index = torch.from_numpy(rng.permutation(len(split))[:images])
    batches = list(parts_of(split.load(index), split.labels[index], -(-len(index) // BATCH)))

    @torch.no_grad()
    def examine(path: Path) -> float:
        total = 0.0
        with supernet.statistics_kept(), compute.autocast():
            for part, labels in batches:
                x, wanted = compute.put(to_input(part), labels)
                logits = supernet(x, plain_gates(path)).float()
                total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        return total / len(index)

    return examine


def look(
    log_probabilities: NDArray[np.float64],
    constraints: Sequence[Constraint],
    examine: Examiner,
    *,
    looks: int,
    rng: np.random.Generator,
    on_look: OnLook | None = None,
) -> dict[Path, float]:
    """Different networks that keep all limits, with their cross-entropies: the decoded one, then decodes under Gumbel
    noise (perturb and MAP, Papandreou & Yuille, 2011), by turns around the probabilities and around none, so that every
    candidate is seen and most networks use the limit up. Fewer than `looks` where there are no more. Raises
    TrainingError for a cross-entropy that is no number."""
    alive = np.isfinite(log_probabilities)
    floored = np.where(alive, np.maximum(log_probabilities, FLOOR), -np.inf)
    paths = {decode(log_probabilities, constraints): None}
    for attempt in range(4 * looks):
        if len(paths) >= looks:
            break
        centre = floored if attempt % 2 else np.where(alive, 0.0, -np.inf)
        paths[decode(centre + rng.gumbel(size=alive.shape), constraints)] = None
    found = {}
    for count, path in enumerate(paths, 1):
        found[path] = check_finite(examine(path), f"comparing networks, choices {'-'.join(map(str, path))}")
        if on_look:
            on_look(count, len(paths))
    return found


def quality(
    log_probabilities: NDArray[np.float64], constraints: Sequence[Constraint], examined: dict[Path, float]
) -> NDArray[np.float64]:
    """(positions, candidates): minus what each candidate adds to the cross-entropy; -inf where there is none.

    Cross-entropy = constant + a * sum of -log p + for each limit b * cost + the candidates' own parts, which ridge
    regression keeps as small as leave-one-out errors want them. The costs take back the price of latency that the
    probabilities were learned under: near the limit it is the limit that decides, not its price. From fewer than FEWEST
    networks nothing is fitted, and the probabilities are the answer.
    """
    if len(examined) < FEWEST:
        return log_probabilities
    alive = np.isfinite(log_probabilities)
    floored = np.where(alive, np.maximum(log_probabilities, FLOOR), 0.0)
    shared = [-floored, *(np.where(alive, c.table.values, 0.0) / c.limit for c in constraints)]
    paths = np.array(list(examined))
    rows = np.arange(len(alive))
    common = np.stack([column[rows, paths].sum(1) for column in shared], axis=1)
    spread = common.std(axis=0)
    # A column that is the same in all networks says nothing.
    scale = np.where(spread > 1e-9, UNPENALISED / np.maximum(spread, 1e-9), 0.0)
    own = (paths[:, :, None] == np.arange(alive.shape[1])).reshape(len(paths), -1)
    model = RidgeCV(alphas=np.logspace(-2, 4, 25)).fit(np.c_[common * scale, own], list(examined.values()))
    parts = model.coef_[len(shared) :].reshape(alive.shape)
    total = parts + sum(w * s * column for w, s, column in zip(model.coef_, scale, shared, strict=False))
    return np.where(alive, -total, -np.inf)
