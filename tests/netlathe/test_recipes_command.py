"""Recipes by name from the command and from Python, and what reports tell of classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_own_pieces import CONFIG, MacsModel, images, search
from typer.testing import CliRunner, Result

import netlathe as nl
from netlathe.archspace.errors import NetlatheError
from netlathe.cli.app import make_app
from netlathe.report.run_content import read_run
from netlathe.report.run_page import page_of_run
from netlathe.runs.compression.pipeline import tuning
from netlathe.runs.searched import described
from netlathe.training.errors import TrainingError
from netlathe.training.recipes import RECIPES
from netlathe.words import percent_within


def netlathe(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(only=str(arguments[0])), [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_search", "draw_architectures"):
        monkeypatch.setattr(f"netlathe.runs.chosen.{name}", lambda *_: None)


def unequal() -> tuple[Any, Any]:
    """Images of three shades, of the last of which there are few."""
    pixels, labels = images(150)
    kept = np.r_[np.flatnonzero(labels < 2), np.flatnonzero(labels == 2)[:12]]
    return pixels[kept], labels[kept]


def test_the_list_has_every_recipe_on_a_line_and_its_source_behind_its_name() -> None:
    result = netlathe("recipes")
    assert result.exit_code == 0, result.output
    for name, kind in RECIPES.items():
        (line,) = (line for line in result.stdout.splitlines() if line.split()[:1] == [name])
        assert f" {kind().epochs} " in line
    told = netlathe("recipes", "cifar")
    assert "arXiv:1708.04552" in told.output
    assert "erased area" in told.stdout
    found = json.loads(netlathe("recipes", "--json").stdout.splitlines()[-1])["recipes"]
    assert [one["name"] for one in found] == list(RECIPES)
    assert found[0]["settings"]["augmentation"]["erasing"] == 1.0


@pytest.mark.parametrize(
    "command",
    [
        ("recipes", "cifer"),
        ("search", "--data", "digits", "--output", "{}", "--predictor", "pixel4-cpu-networks", "--target-ms", "2",
         "--recipe", "cifer"),
        ("compress", "nothing.onnx", "--target", "pixel4-cpu-networks=2", "--output", "{}", "--recipe", "cifer"),
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_wrong_name_is_one_line_with_the_right_one_and_writes_nothing(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    result = netlathe(*(word.format(tmp_path / "run") for word in command))
    assert result.exit_code == 1
    assert "did you mean 'cifar'?" in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_two_trainings_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NetlatheError, match=r"recipe 'cifar' and a training are given.*training_recipe\('cifar'"):
        search(tmp_path / "run", recipe="cifar")
    with pytest.raises(TrainingError, match="did you mean 'cifar'"):
        search(tmp_path / "run", recipe="cifra", training=None)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("netlathe.training.augmentation.import_module", refuse)
    with pytest.raises(TrainingError, match=r"pip install 'netlathe\[recipes\]'"):
        search(tmp_path / "run", recipe="cifar", training=None)
    assert not (tmp_path / "run").exists()


def test_settings_that_earlier_runs_lack_are_left_out_of_their_description() -> None:
    plain = described(nl.TrainConfig())
    assert {"optimizer", "drop_path", "resolutions", "augmentation", "recipe", "class_weights"}.isdisjoint(plain)
    told = described(nl.training_recipe("imagenet-adamw"))
    assert told["recipe"] == "imagenet-adamw"
    assert told["augmentation"]["policy"] == "randaugment"
    assert json.loads(json.dumps(told)) == told
    assert "class_weights" not in described(nl.SearchConfig())
    assert described(nl.SearchConfig(class_weights="balanced"))["class_weights"] == "balanced"


def test_a_compression_is_short_and_gentle_unless_a_recipe_or_an_option_says_otherwise() -> None:
    plain = tuning(seed=3, epochs=None)
    assert (plain.epochs, plain.learning_rate, plain.seed, plain.recipe) == (10, 0.02, 3, "")
    assert (tuning(epochs=0).epochs, tuning(epochs=0).learning_rate) == (0, 0.02)
    own = tuning("cifar", learning_rate=0.01)
    assert (own.epochs, own.learning_rate, own.recipe) == (200, 0.01, "cifar")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("recipes") / "run"
    training = nl.training_recipe("cifar", epochs=1, batch_size=16, learning_rate=0.05, class_weights="balanced")
    config = nl.SearchConfig(**{**vars(CONFIG), "class_weights": "balanced"})
    target = nl.Target(MacsModel(), 1e3, "mine")  # type: ignore[arg-type]
    from test_own_pieces import SPACE

    return nl.search(SPACE, unequal(), target=target, output=folder, config=config, training=training)


def test_a_report_tells_what_its_accuracies_are_worth(run: Any) -> None:
    told = run.classification
    confusion = np.array(told["confusion"])
    assert confusion.sum() == told["images"] == run.test_images
    assert told["accuracy"] == pytest.approx(run.test_accuracy)
    assert told["interval"][0] < told["accuracy"] <= told["interval"][1]
    shares = np.diag(confusion) / confusion.sum(1)
    assert told["balanced_accuracy"] == pytest.approx(shares.mean())
    assert run.seed == 0
    assert json.loads((Path(run.folder) / "report.json").read_text())["classification"] == told
    assert run.run["train"]["recipe"] == "cifar"
    assert run.run["train"]["class_weights"] == run.run["config"]["class_weights"] == "balanced"


def test_the_page_tells_it_too(run: Any) -> None:
    content = read_run(Path(run.folder))
    text = repr(page_of_run(content))
    assert "balanced accuracy" in text
    assert percent_within(run.accuracy["tflite"], run.test_images) in text
    assert "('recipe', 'cifar')" in text


def test_a_report_of_an_earlier_version_tells_less(run: Any) -> None:
    path = Path(run.folder) / "report.json"
    whole = path.read_text()
    content = json.loads(whole)
    del content["classification"], content["seed"]
    path.write_text(json.dumps(content))
    try:
        assert "balanced accuracy" not in repr(page_of_run(read_run(Path(run.folder))))
    finally:
        path.write_text(whole)


@pytest.mark.parametrize(("share", "count", "words"), [
    (0.981, 360, "98.1 % ± 1.5"), (None, 360, "-"), (0.5, 0, "50.0 %"), (1.0, 10, "100.0 % ± 13.9")
])  # fmt: skip
def test_accuracies_are_written_with_half_their_interval(share: float | None, count: int, words: str) -> None:
    assert percent_within(share, count) == words
