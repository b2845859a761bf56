"""The networks to be compressed, trained once and kept: NAME.npz (the state_dict), NAME.onnx, NAME.json."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import netlathe as nl
from benchmarks.compress.networks import NETWORKS, example
from netlathe.archspace.files import write_whole, writing
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.events import Listener
from netlathe.training import Checkpointer, Compute, ImageData, TrainConfig, evaluate, train

RECIPES = {
    "resnet20": (
        TrainConfig(epochs=12, warmup_epochs=0.5, learning_rate=0.1, weight_decay=5e-4, label_smoothing=0.0),
        "bfloat16",
    ),
    "mobilenetv2_0.5": (
        TrainConfig(epochs=12, warmup_epochs=0.5, learning_rate=0.1, weight_decay=2e-4, label_smoothing=0.0),
        "float32",
    ),
    "resnet14": (
        TrainConfig(epochs=2, warmup_epochs=0.5, learning_rate=0.1, weight_decay=5e-4, label_smoothing=0.0),
        "bfloat16",
    ),
}
"""A network's training, and the precision that is faster for it on a processor with bfloat16."""
SAVED_EVERY_S = 60.0


def original(name: str, data: ImageData, folder: Path, listener: Listener, *, seed: int = 0) -> nn.Module:
    """The trained network in eval mode, from `folder` or trained on the training split alone, resumable."""
    stem = folder / (name if seed == 0 else f"{name}_seed{seed}")
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    kept = stem.with_name(f"{stem.name}.npz")
    if not kept.exists():
        _train(network, name, data, stem, listener, seed)
    with np.load(kept, allow_pickle=False) as file:
        network.load_state_dict({key: torch.from_numpy(file[key]) for key in file.files})
    return network.eval()


def _train(network: nn.Module, name: str, data: ImageData, stem: Path, listener: Listener, seed: int) -> None:
    config, precision = RECIPES[name]
    config = replace(config, seed=seed)
    compute = Compute(precision=precision, threads=1)  # type: ignore[arg-type]
    path = stem.with_name(f"{stem.name}.ckpt")
    checkpointer = Checkpointer(path, {"name": name, **asdict(config)}, every_s=SAVED_EVERY_S)
    begun = time.process_time()
    with compute.threaded(), listener.progress(f"training {name}", "steps") as update:
        train(
            network, data, config, lambda at: update(at.step, at.steps, f"loss {at.loss:.2f}"), compute=compute,
            checkpointer=checkpointer, split=data.train,
        )  # fmt: skip
    cpu_s = time.process_time() - begun
    found = {"accuracy": evaluate(network, data.test), "validation": evaluate(network, data.validation)}
    told = {**found, "cpu_s_since_resumed": cpu_s, "precision": precision, "config": asdict(config)}
    write_whole(stem.with_name(f"{stem.name}.onnx"), write_onnx(*nl.read_weights(network.eval(), example())))
    write_whole(stem.with_name(f"{stem.name}.json"), json.dumps(told, indent=1).encode())
    with writing(stem.with_name(f"{stem.name}.npz"), makes_folder=True) as part:
        np.savez(part, **{key: value.numpy() for key, value in network.state_dict().items()})
    checkpointer.forget()
