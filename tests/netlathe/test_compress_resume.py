"""A compression that is killed: each phase and each step of the training is done once, by our training or another's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_compress import ONE, Digits, data, found_in, module, predictor_of

import netlathe as nl
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.records import Setup

__all__ = ["data", "module"]  # fixtures
pytestmark = pytest.mark.slow
EPOCHS, BATCH = 3, 16
PROGRAM = """
import sys, time
from pathlib import Path
import torch
import netlathe as nl
import netlathe.runs.folder, netlathe.runs.logs
from netlathe.training import TrainConfig, load_images
from netlathe.training.compute import Compute

netlathe.runs.folder.EVERY_S = 0.0  # it saves after every step
model, predictor, ms, output, steps, kind = sys.argv[1:]

def note(step):
    with open(steps, "a") as stream:
        stream.write(f"{step}\\n")
    time.sleep(0.03)  # long enough to be killed between two

def recipe(network, data, compute, checkpointer):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    state = checkpointer.load()
    begun = 0
    if state:
        network.load_state_dict(state["network"])
        begun = state["step"]
    network.train()
    for step in range(begun + 1, 25):
        rows = torch.arange(16) + 4 * step
        x, y = data.train.normalization(data.train.load(rows)), data.train.labels[rows]
        loss = torch.nn.functional.cross_entropy(network(x).flatten(1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        checkpointer.save({"network": network.state_dict(), "step": step})
        note(step)
    return network

def plain(network, data, compute):
    note(1)
    return network

real = netlathe.runs.logs.TrainLog.__call__

def noted(log, step, *more, **others):
    note(step.step if hasattr(step, "step") else step)
    return real(log, step, *more, **others)

netlathe.runs.logs.TrainLog.__call__ = noted
training = {"ours": TrainConfig(epochs=3, batch_size=16, learning_rate=0.02), "recipe": recipe, "plain": plain}[kind]
nl.compress(
    model, target=nl.Target(predictor, float(ms)), data=load_images("digits", (8, 8), channels=1, limit=300), step=4,
    finalists=3, output=output, training=training, compute=Compute(threads=1), progress=True,
)
"""

Run = Callable[[str, str], list[str]]


@pytest.fixture(scope="module")
def run(module: Digits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The words that compress to a folder of that name by a kind of training."""
    folder = tmp_path_factory.mktemp("resume")
    graph, weights = nl.read_weights(module, ONE)
    (folder / "digits.onnx").write_bytes(write_onnx(graph, weights))
    predictor = predictor_of(graph, Setup("bench", "cpu", "os", "litert", "2"))
    predictor.save(folder / "bench.json")
    (folder / "program.py").write_text(PROGRAM)
    ms = 0.5 * float(predictor.predict([graph])[0])

    def words(name: str, kind: str) -> list[str]:
        paths = (folder / "program.py", folder / "digits.onnx", folder / "bench.json")
        return [sys.executable, *map(str, (*paths, ms, folder / name, folder / f"{name}.steps", kind))]

    return words


def killed(words: list[str], steps: Path, count: int) -> None:
    """Runs a program until its training has made so many steps, and kills it."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while not (steps.is_file() and len(steps.read_text().splitlines()) >= count):
        assert process.poll() is None, (process.stderr and process.stderr.read()[-2000:],)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("kind", ["ours", "recipe"])
def test_a_training_goes_on_from_the_step_that_it_was_killed_at(run: Run, kind: str) -> None:
    whole, cut = run(f"{kind}-whole", kind), run(f"{kind}-cut", kind)
    done = subprocess.run(whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = Path(whole[-2]).read_text().splitlines()
    assert len(wanted) > 20
    steps = Path(cut[-2])
    for count in (5, 12):
        killed(cut, steps, count)
    subprocess.run(cut, check=True, capture_output=True)
    made = list(map(int, steps.read_text().splitlines()))
    assert sorted({*made}) == list(map(int, wanted))
    assert len(made) <= len(wanted) + 2  # the step that was being made at each kill is made again, no other
    assert made == sorted(made)
    assert found_in(Path(cut[-3])) == found_in(Path(whole[-3]))


def test_a_recipe_without_checkpoints_is_trained_again_and_nothing_else_is(run: Run) -> None:
    words = run("plain", "plain")
    killed(words, Path(words[-2]), 1)
    folder = Path(words[-3])
    kept = {name: (folder / name).stat().st_mtime_ns for name in ("importance.json", "widths.json")}
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert "comparing finalists" not in done.stderr
    assert json.loads((folder / "report.json").read_text())["is_changed"]
