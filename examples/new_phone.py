"""A phone that nobody has seen, known from ten measurements: 48 others tell the rest.

Public measurements of 92 networks on 49 phones (data/latency). One phone, and every unit of its model, is taken away as
if it were new; ten of its networks count as measured, and the other 82 are predicted. From the root of a checkout:

    python -m examples.new_phone                      # seconds
    python -m examples.new_phone --phone Nokia_6.1_Plus_0 --count 5

Writes new_phone.png: predicted against measured, by FLOPs and by netlathe.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

import netlathe as nl
from scripts.latency_tables import phone_model, phones49


def main(given: Sequence[str] | None = None) -> None:
    """Learns the other phones, adapts that to the new one, and draws how right it is."""
    phones = phones49()
    names = [str(name) for name in phones.latency_ms]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phone", default=names[0], choices=names, help=f"the new one; default {names[0]}")
    parser.add_argument("--count", type=int, default=10, help="networks that are measured on it; default 10")
    parser.add_argument("--known", type=int, help="other phones that are known; all by default")
    parser.add_argument("--output", default="new_phone.png", help="the picture; default new_phone.png")
    options = parser.parse_args(given)

    # What is known: the same networks on phones of other models.
    networks = list(phones.pieces.values())
    others = [name for name in names if phone_model(name) != phone_model(options.phone)][: options.known]
    prior = nl.Prior.learn({name: (networks, phones.latency_ms[name].to_numpy(float)) for name in others})

    # What is measured: ten networks on the new phone.
    order = np.random.default_rng(0).permutation(len(networks))
    seen, unseen = order[: options.count], order[options.count :]
    latency_ms = phones.latency_ms[options.phone].to_numpy(float)
    model = nl.LatencyPredictor(prior=prior).fit([networks[i] for i in seen], latency_ms[seen])
    predicted_ms = model.predict([networks[i] for i in unseen])
    low_ms, high_ms = model.predict_interval([networks[i] for i in unseen])

    # The usual way, for comparison: FLOPs times what one took in the median.
    macs = np.array([sum(graph.macs for graph in pieces) for pieces in networks], dtype=float)
    by_flops_ms = macs[unseen] * np.median(latency_ms[seen] / macs[seen])
    measured_ms = latency_ms[unseen]
    inside = np.mean((low_ms <= measured_ms) & (measured_ms <= high_ms))

    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, way, ms in zip(figure.subplots(1, 2), ("FLOPs", "netlathe"), (by_flops_ms, predicted_ms), strict=True):
        share = np.mean(np.abs(ms / measured_ms - 1) <= 0.1)
        print(f"by {way}: {share:.0%} of {len(unseen)} networks within 10 %")
        axes.loglog(measured_ms, ms, ".")
        axes.plot(*2 * [[measured_ms.min(), measured_ms.max()]], color="0.7", zorder=0)
        axes.set(title=f"by {way}: {share:.0%} within 10 %", xlabel="measured, ms", ylabel="predicted, ms")
    print(f"{inside:.0%} are inside their 90 % intervals")
    figure.savefig(options.output, dpi=120)
    print(f"drawn: {options.output}")


if __name__ == "__main__":
    main()
