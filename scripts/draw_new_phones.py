"""Draws docs/new_phones.png: networks on phones of models that no prior has seen, by FLOPs and by netlathe.

Of each of the 49 phones of data/latency, ten random networks of 92 count as measured; both ways learn from those, and
the other 82 are predicted. By FLOPs: multiply-accumulates times the median milliseconds per one of the ten. By
netlathe: the prior of all phones of other models, adapted to the ten.

    python -m scripts.draw_new_phones     # from the root of the checkout: half a minute
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from netlathe.predictor import LatencyPredictor
from netlathe.predictor.folds import configuration_folds
from scripts.fit_priors import FOLDS, learn
from scripts.latency_tables import Networks, phone_model, phones49

PICTURE = Path(__file__).parents[1] / "docs" / "new_phones.png"
MEASURED = 10
WAYS = "FLOPs", "netlathe"


class Predicted(NamedTuple):
    """Latencies of networks that were not measured, in ms, one phone after the other."""

    measured_ms: NDArray[np.float64]
    by_flops_ms: NDArray[np.float64]
    by_netlathe_ms: NDArray[np.float64]

    def within_10(self) -> tuple[float, float]:
        """Shares of predictions at most 10 % off, in percent: by FLOPs, by netlathe."""
        by_flops, by_netlathe = (
            100 * float((np.abs(ms / self.measured_ms - 1) <= 0.1).mean())
            for ms in (self.by_flops_ms, self.by_netlathe_ms)
        )
        return by_flops, by_netlathe


def predict_new_phones(phones: Networks) -> Predicted:
    """Every phone once, with the phones of other models as the known ones."""
    devices, items = [str(device) for device in phones.latency_ms], list(phones.pieces.values())
    macs = np.array([sum(graph.macs for graph in pieces) for pieces in items], dtype=float)
    found = []
    for fold in configuration_folds([phone_model(device) for device in devices], FOLDS, seed=0):
        prior = learn(phones, [device for index, device in enumerate(devices) if index not in fold])
        for index in fold:
            order = np.random.default_rng(index).permutation(len(items))
            known, others = order[:MEASURED], order[MEASURED:]
            latency_ms = phones.latency_ms[devices[index]].to_numpy(float)
            model = LatencyPredictor(prior=prior).fit([items[i] for i in known], latency_ms[known])
            by_flops = macs[others] * np.median(latency_ms[known] / macs[known])
            found.append((latency_ms[others], by_flops, model.predict([items[i] for i in others])))
    return Predicted(*(np.concatenate(part) for part in zip(*found, strict=True)))


def draw(predicted: Predicted, path: Path) -> None:
    """Both ways side by side, on the same axes."""
    figure = Figure(figsize=(6.6, 3.8), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(1, 2, sharex=True, sharey=True)
    low, high = 0.9 * predicted.measured_ms.min(), 1.1 * predicted.measured_ms.max()
    guesses = (predicted.by_flops_ms, predicted.by_netlathe_ms)
    for axis, way, color, ms, share in zip(
        axes, WAYS, ("#fb8500", "#219ebc"), guesses, predicted.within_10(), strict=True
    ):
        ends = np.array([low, high])
        axis.fill_between(ends, 0.9 * ends, 1.1 * ends, color="#dee2e6", linewidth=0, label="within ±10 %")
        axis.plot(predicted.measured_ms, ms, ".", markersize=2.5, alpha=0.5, color=color, markeredgewidth=0)
        axis.set_title(f"by {way}\n{share:.0f} % within ±10 %", fontsize=13, fontweight="bold")
        axis.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal", xlabel="measured, ms")
        for scale in (axis.xaxis, axis.yaxis):
            scale.set_major_formatter("{x:g}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("predicted, ms")
    axes[0].legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Writes docs/new_phones.png, and prints what it shows."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    predicted = predict_new_phones(phones49())
    draw(predicted, PICTURE)
    for way, share in zip(WAYS, predicted.within_10(), strict=True):
        print(f"by {way}: {share:.1f} % of {len(predicted.measured_ms)} predictions within 10 %")


if __name__ == "__main__":
    main()
