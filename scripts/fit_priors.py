"""Learns the priors of data/priors from the tables of data/latency, with what a few measurements on a new phone give.

From the root of the checkout, a minute: `python -m scripts.fit_priors`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netlathe.predictor import LatencyPredictor, Metrics, Prior, measure
from netlathe.predictor.folds import configuration_folds
from scripts import latency_tables as tables

FOLDER = Path(__file__).parents[1] / "data" / "priors"
FOLDS = 5
COUNTS = (10, 20, 50)
"""How many networks are measured on a new phone."""
CARD = {
    "name": "phones49",
    "summary": "The CPUs of 49 phones (30 models), each with 92 networks like MobileNet end to end.",
    "source": "https://github.com/iitm-sysdl/Generalizable-DNN-cost-models",
    "license": "Apache-2.0",
    "limits": [
        "Phones of 2015 to 2020 with Arm CPUs. Threads, cores and delegate were not recorded.",
        "Networks of inverted residuals, depthwise and plain convolutions with ReLU. Other work is guessed from few.",
    ],
}


def learn(phones: tables.Networks, devices: list[str]) -> Prior:
    """From some of the phones."""
    items = list(phones.pieces.values())
    return Prior.learn({device: (items, phones.latency_ms[device].to_numpy(float)) for device in devices})


def accuracy(phones: tables.Networks) -> dict[str, Metrics]:
    """On phones of models that the prior has not seen, of each of COUNTS random networks measured, on all others."""
    devices, items = [str(device) for device in phones.latency_ms], list(phones.pieces.values())
    parts: dict[int, list[NDArray[np.float64]]] = {count: [] for count in COUNTS}
    for fold in configuration_folds([tables.phone_model(device) for device in devices], FOLDS, seed=0):
        prior = learn(phones, [device for index, device in enumerate(devices) if index not in fold])
        for index in fold:
            order = np.random.default_rng(index).permutation(len(items))
            latency_ms = phones.latency_ms[devices[index]].to_numpy(float)
            for count, found in parts.items():
                train, test = order[:count], order[count:]
                model = LatencyPredictor(prior=prior).fit([items[i] for i in train], latency_ms[train])
                others = [items[i] for i in test]
                found.append(np.stack([latency_ms[test], model.predict(others), *model.predict_interval(others, 0.9)]))
    return {f"{count} networks measured": measure(*np.concatenate(found, axis=1)) for count, found in parts.items()}


def main() -> None:
    """Writes data/priors/phones49.json."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    phones = tables.phones49()
    prior = learn(phones, [str(device) for device in phones.latency_ms])
    found = accuracy(phones)
    card = {**CARD, "devices": len(prior.devices), "accuracy": {words: asdict(m) for words, m in found.items()}}
    prior.save(FOLDER / "phones49.json", card)
    for words, metrics in found.items():
        print(f"phones49, new phone, {words}: {metrics}", flush=True)


if __name__ == "__main__":
    main()
