"""Second phase of a compression that decides on more than widths: how much the loss rises where a block is left out, or
a segment has another precision, in one unit with what cuts of widths cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from netlathe.archspace.decisions import Choices
from netlathe.compress.joint import Sensitivity
from netlathe.compress.quantization import sensitivity_by_weights
from netlathe.runs.compression.scored import Scored
from netlathe.runs.compression.settings import CompressSettings
from netlathe.runs.compression.shaped import FinalistLoss
from netlathe.runs.files import SENSITIVITY
from netlathe.runs.folder import Workplace
from netlathe.runs.phase import Phase

CUTS = 6
"""Random cuts of all widths that the widths' scores are held against."""
LEAST_KEPT, MOST_KEPT = 0.5, 0.9
"""Parts of the widths that such a cut keeps: as a compression's do, since the loss rises faster than scores."""


class SensitivityPhase(Phase[Sensitivity]):
    """Rises of the loss, measured one decision at a time."""

    record, kind = SENSITIVITY, "sensitivity"

    def __init__(self, settings: CompressSettings, place: Workplace, scored: Scored) -> None:
        super().__init__(
            place, {**settings.importance_inputs(), **settings.space_inputs(), "score": settings.score_name}
        )
        self.settings, self.scored = settings, scored

    def work(self) -> Sensitivity:
        """Raises TrainingError for a loss that is no number, FormatError where LiteRT cannot run a precision."""
        settings = self.settings
        if settings.data is None and settings.score is None:
            return sensitivity_by_weights(settings.space, settings.original.weights)
        rise = Rise(settings, self.place, self.scored)
        space, names = settings.space, settings.space.decision_names
        singles = [
            (place, option) for place in range(len(space.groups), len(names))
            for option in range(1, space.option_counts[place])
        ]  # fmt: skip
        cuts = random_cuts(settings)
        rises: dict[str, list[float]] = {name: [0.0] for name in names[len(space.groups) :]}
        with self.place.listener.progress("finding what blocks and precisions are worth", "networks") as update:
            for number, (place, option) in enumerate(singles):
                update(number, len(singles) + len(cuts), names[place])
                changed = (*space.reference[:place], option, *space.reference[place + 1 :])
                rises[names[place]].append(max(rise(changed), 0.0))
            of_cuts = []
            for number, choices in enumerate(cuts):
                update(len(singles) + number, len(singles) + len(cuts), "widths")
                of_cuts.append(rise(choices))
        return Sensitivity(self._rate(cuts, of_cuts), rises)

    def _rate(self, cuts: Sequence[Choices], rises: Sequence[float]) -> float:
        """Rise of the loss per unit of the widths' scores: the median over the cuts."""
        comparable = self.scored.teacher is not None
        scores = self.settings.space.option_scores(self.scored.scores, comparable=comparable)
        lost = [-float(scores[np.arange(len(one)), list(one)].sum()) for one in cuts]
        ratios = [rise / loss for rise, loss in zip(rises, lost, strict=True) if loss > 0 and rise > 0]
        return float(np.median(ratios)) if ratios else 1.0

    def write(self, output: Sensitivity) -> dict[str, Any]:
        return {"rate": output.rate, "rises": {name: list(values) for name, values in output.rises.items()}}

    def read(self, content: Mapping[str, Any]) -> Sensitivity:
        rises = {str(name): [float(value) for value in values] for name, values in content["rises"].items()}
        found = Sensitivity(float(content["rate"]), rises)
        scores = {group.name: np.ones(group.units) for group in self.settings.space.coupled.groups}
        self.settings.space.option_scores(scores, sensitivity=found)
        return found

    def is_replaced(self, differences: tuple[str, ...]) -> bool:
        """Always: it takes minutes, and the importance beside it is of the same model and images."""
        return True


class Rise:
    """Rise of the loss of a network over the original's: the mean Kullback-Leibler divergence of its class
    probabilities from the original's on validation images, in nats; with a score of the user's own, what it is lower
    by."""

    def __init__(self, settings: CompressSettings, place: Workplace, scored: Scored) -> None:
        self._loss = FinalistLoss(settings, place, scored, against_labels=False)
        self._least = self._loss(settings.space.reference).loss

    def __call__(self, choices: Choices) -> float:
        return self._loss(choices).loss - self._least


def random_cuts(settings: CompressSettings) -> list[Choices]:
    """Networks whose widths are all cut, each by another share around one of their own."""
    space, rng = settings.space, np.random.default_rng(settings.seed)
    if not space.groups:
        return []
    found = []
    for share in np.linspace(MOST_KEPT, LEAST_KEPT, CUTS):
        kept = 1 - (1 - share) * rng.uniform(0, 2, len(space.groups))
        nearest = (
            int(np.abs(np.array(widths) / widths[0] - part).argmin())
            for widths, part in zip(space.widths, kept, strict=True)
        )
        found.append((*nearest, *space.reference[len(space.groups) :]))
    return found
