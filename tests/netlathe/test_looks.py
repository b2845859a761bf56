"""Searches by black-box strategies from end to end: scores of a user's own, tables, trainings, workers, resuming."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import answer, refusal

import netlathe as nl
from netlathe import training
from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.graph import Graph
from netlathe.archspace.records import Setup
from netlathe.archspace.spaces import Architecture, SearchSpace
from netlathe.runs.files import load_report
from netlathe.runs.scores import ScoreTable, parse_scores
from netlathe.runs.settings import parse_counts

CHOICES = (MBConv(8, 8, 8, 8, kernel=3, expand=6), MBConv(8, 8, 8, 8, kernel=3, expand=2), Skip(8, 8, 8, 8))
SPACE = SearchSpace("small", ((ConvBlock(3, 8, 8, 8),), CHOICES, CHOICES, (LinearHead(8, 3, 8, 8),)))
EVERY = [SPACE.architecture([one, other]) for one in range(3) for other in range(3)]
BY_MACS = sorted(EVERY, key=lambda network: network.macs)
LIMIT_MS = 1e-6 * BY_MACS[5].macs + 1e-3


class MacsModel:
    """A millisecond per million MACs."""

    def predict(self, graphs: Sequence[Graph]) -> list[float]:
        return [1e-6 * graph.macs + 1e-3 for graph in graphs]


def images(count: int = 60) -> tuple[Any, Any]:
    """Images of three shades, which are their classes."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(-30, 30, (count, 8, 8, 3))
    return ((80 * labels + 40)[:, None, None, None] + noise).astype(np.uint8), labels


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time."""
    monkeypatch.setattr("netlathe.runs.chosen.draw_architectures", lambda *_: None)


@dataclass(frozen=True)
class Counted:
    """Score by MACs, with a line in a file for each look-up."""

    log: str

    def __call__(self, architecture: Architecture, budget: int) -> float:
        with Path(self.log).open("a") as stream:
            stream.write(f"{architecture.name} {budget}\n")
        return float(architecture.macs)

    @property
    def seen(self) -> list[str]:
        return Path(self.log).read_text().splitlines() if Path(self.log).exists() else []


def options(output: Path, **more: Any) -> dict[str, Any]:
    training = nl.TrainConfig(epochs=1, batch_size=16)
    return {"target": nl.Target(MacsModel(), LIMIT_MS, "mine"), "output": output, "training": training, **more}


def search(output: Path, **more: Any) -> Any:
    return nl.search(SPACE, images(), **options(output, **more))


@pytest.mark.parametrize("strategy", ["ego", "uct", "nsga2"])
def test_the_best_network_within_the_target_is_found_trained_and_exported(tmp_path: Path, strategy: str) -> None:
    score = Counted(str(tmp_path / "log"))
    report = search(tmp_path / "run", strategy=strategy, looks=9, look_epochs=3, score=score)
    assert report.macs == BY_MACS[5].macs
    assert report.is_met
    assert report.targets[0].expected_ms is None
    assert report.targets[0].predicted_ms <= LIMIT_MS
    assert Path(report.files["tflite"]).is_file()
    within = {one.name for one in EVERY if one.macs <= BY_MACS[5].macs}
    assert len(score.seen) == len(within)
    assert set(score.seen) == {f"{name} 3" for name in within}
    with (tmp_path / "run" / "looks.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["network"] for row in rows} == within
    assert {float(row["latency on mine (ms)"]) <= LIMIT_MS for row in rows} == {True}


def test_a_search_goes_on_where_it_was_and_a_larger_one_looks_at_the_rest_alone(tmp_path: Path) -> None:
    score = Counted(str(tmp_path / "log"))
    run = tmp_path / "run"
    first = search(run, strategy="local", looks=2, score=score)
    assert len(score.seen) == 2
    assert search(run, strategy="local", looks=2, score=score).to_json() == first.to_json()
    assert len(score.seen) == 2
    search(run, strategy="local", looks=4, score=score)
    assert len(set(score.seen)) == len(score.seen) == 4
    with pytest.raises(nl.FormatError, match=r'config.strategy: "ego" here, "local" in the record'):
        search(run, strategy="ego", looks=4, score=score)
    with pytest.raises(nl.FormatError, match="in the record"):
        search(run, config=nl.SearchConfig(start_epochs=1, warmup_epochs=0, epochs=1))
    search(run, strategy="random", looks=1, score=score, restart=True)
    assert len(score.seen) == 5


def test_a_look_up_trains_on_the_training_images_and_is_judged_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    real = training.train

    def train(network: Any, data: Any, config: Any, *more: Any, **options: Any) -> None:
        assert len(data.validation) > 0
        if config.epochs == 2:
            assert options["split"] is data.train
            trained.append(config.epochs)
        real(network, data, config, *more, **options)

    monkeypatch.setattr(training, "train", train)
    search(tmp_path / "run", strategy="random", looks=2, look_epochs=2)
    with (tmp_path / "run" / "looks.csv").open(newline="") as stream:
        scores = [float(row["score"]) for row in csv.DictReader(stream)]
    assert len(scores) == len(trained) == 2
    assert all(0 <= score <= 1 for score in scores)
    assert json.loads((tmp_path / "run" / "search.json").read_text())["seconds"] > 0


def test_whoever_joins_does_the_look_ups_and_the_search_chooses_among_them(tmp_path: Path) -> None:
    score = Counted(str(tmp_path / "log"))
    for storage in (None, tmp_path / "shared.journal"):
        output = tmp_path / f"run-{storage is None}"
        before = len(score.seen)
        told = {"strategy": "evolution", "looks": 3, "score": score, "storage": storage}
        assert nl.join_search(SPACE, images(), **options(output, **told)) == 3
        assert nl.join_search(SPACE, images(), **options(output, **told)) == 0
        assert len(score.seen) - before == 3
        search(output, **told)
        assert len(score.seen) - before == 3
    assert (tmp_path / "shared.journal").is_file()


def test_failures_have_no_score_and_where_all_fail_the_search_says_why(tmp_path: Path) -> None:
    report = search(tmp_path / "run", strategy="random", looks=9, score=fails_where_heavy)
    assert report.macs == max(one.macs for one in EVERY if one.macs < BY_MACS[4].macs)
    rows = (tmp_path / "run" / "looks.csv").read_text().splitlines()
    assert sum(",failed," in row for row in rows) == sum(one.macs >= BY_MACS[4].macs for one in BY_MACS[:6])
    with pytest.raises(nl.SearchError, match="look-ups failed, the last with: ValueError: out of memory"):
        search(tmp_path / "other", strategy="random", looks=9, score=fails)


def fails_where_heavy(architecture: Architecture) -> float:
    return float("nan") if architecture.macs >= BY_MACS[4].macs else float(architecture.macs)


def fails(architecture: Architecture) -> float:
    raise ValueError("out of memory")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"strategy": "nas"}, "--strategy nas: unknown; known are binarized, ego, uct"),
        ({"strategy": "ego", "looks": 0}, "--looks 0: must be at least 1"),
        ({"strategy": "ego", "train_from": "supernet"}, "has no supernet"),
        ({"storage": "sqlite:///s.db"}, "makes no look-ups"),
    ],
)
def test_options_that_contradict_the_strategy_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(nl.NetlatheError, match=message):
        search(tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_a_supernet_cannot_be_joined(tmp_path: Path) -> None:
    with pytest.raises(nl.NetlatheError, match="name a strategy whose look-ups can be shared"):
        nl.join_search(SPACE, images(), **options(tmp_path / "run"))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text("network,accuracy\n" + "".join(f"{one.name},{one.macs}\n" for one in EVERY))
    return path


def test_the_command_searches_a_table_and_a_worker_only_looks(table: Path, tmp_path: Path) -> None:
    space = SearchSpace("small", (*SPACE.positions[:-1], (LinearHead(8, 10, 8, 8),)))
    space.save(tmp_path / "small.json")
    blocks = space.distinct_blocks()
    times_ms = [1e-6 * block.graph().macs for block in blocks]
    setup = Setup("bench", "cpu", "os", "litert", "2")
    nl.LatencyPredictor("none").fit(blocks, times_ms, setup=setup).save(tmp_path / "bench.json")
    words = (
        "search", "--space", tmp_path / "small.json", "--data", "digits", "--limit-images", 60, "--train-epochs", 1,
        "--predictor", tmp_path / "bench.json", "--target-ms", 1.0, "--strategy", "thompson", "--looks", 4,
        "--score", f"{table}:accuracy", "--output", tmp_path / "run",
    )  # fmt: skip
    assert answer(*words, "--worker") == {"looks": 4}
    assert not (tmp_path / "run" / "report.json").exists()
    report = answer(*words)
    assert report["run"]["config"] == {"strategy": "thompson", "seed": 0}
    assert load_report(tmp_path / "run")["name"] == report["name"]
    assert "expected inherit, train, or FILE.csv:COLUMN" in refusal(*words[:-4], "--score", "scores", *words[-2:])


def test_a_table_is_read_or_refused_and_lacks_no_network_silently(table: Path) -> None:
    scores = parse_scores(f"{table}:accuracy")
    assert scores(EVERY[3]) == EVERY[3].macs
    with pytest.raises(nl.NetlatheError, match="has no line for network other"):
        scores(SPACE.architecture([0, 0], "other"))
    table.write_text("network,accuracy\na,high\n")
    with pytest.raises(nl.FormatError, match="line 2 has 'high' as its accuracy"):
        ScoreTable.read(table, "accuracy")
    with pytest.raises(nl.FormatError, match="has no column 'top1', only network, accuracy"):
        ScoreTable.read(table, "top1")
    with pytest.raises(nl.FormatError, match="cannot be read as CSV"):
        ScoreTable.read(table.with_name("none.csv"), "accuracy")


SMALL_MS = 1e-6 * BY_MACS[3].macs + 1e-3


class KilledError(BaseException):
    """In the place of kill -9."""


@dataclass(frozen=True)
class Killed(Counted):
    """Score that ends the process at its fifth look-up, once it has begun."""

    def __call__(self, architecture: Architecture, budget: int) -> float:
        value = super().__call__(architecture, budget)
        if len(self.seen) == 5:
            raise KilledError
        return value


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "looks.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_targets_share_what_they_have_seen_and_no_network_is_looked_at_twice(tmp_path: Path) -> None:
    score, output = Killed(str(tmp_path / "log")), tmp_path / "curve"
    told = options(output, strategy="local", looks=3, score=score, targets_ms=[SMALL_MS, LIMIT_MS])
    with pytest.raises(KilledError):
        nl.join_search(SPACE, images(), **told)
    assert nl.join_search(SPACE, images(), **told) == 2
    report = nl.search(SPACE, images(), **told)
    # Within the smaller target there are four networks, and two more within the larger one.
    assert len(score.seen) == 7
    cut = score.seen[4]
    assert len(set(score.seen)) == 6
    assert score.seen.count(cut) == 2
    small, large = (rows_of(folder) for folder in sorted(output.glob("*ms"), key=lambda f: len(rows_of(f))))
    assert {row["network"] for row in large} == {one.name for one in BY_MACS[:6]}
    assert {row["network"] for row in small} == {one.name for one in BY_MACS[:4]}
    assert [run.macs for run in report.runs] == [BY_MACS[3].macs, BY_MACS[5].macs]
    assert nl.search(SPACE, images(), **told).to_json() == report.to_json()
    assert len(score.seen) == 7


WARM = nl.SearchConfig(start_epochs=1, warmup_epochs=1, epochs=1, batch_size=16)


def test_looks_inherit_the_weights_of_a_supernet_that_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = options(tmp_path / "run", strategy="random", looks=3, score="inherit", config=WARM)
    assert nl.join_search(SPACE, images(), **told) == 3
    supernet = (tmp_path / "run" / "checkpoint.npz").read_bytes()
    assert nl.join_search(SPACE, images(), **told) == 0
    monkeypatch.setattr(training.Checkpointer, "save", lambda *_: pytest.fail("the supernet is trained again"))
    assert nl.join_search(SPACE, images(), **{**told, "looks": 4}) == 1
    assert (tmp_path / "run" / "checkpoint.npz").read_bytes() == supernet


def test_several_budgets_are_looked_at_in_turn_and_the_last_one_decides(tmp_path: Path) -> None:
    cheap, dear = Counted(str(tmp_path / "cheap")), Counted(str(tmp_path / "dear"))
    run, told = tmp_path / "run", {"strategy": "ego", "looks": [6, 2], "look_epochs": [1, 9], "score": [cheap, dear]}
    report = search(run, **told)
    assert len(cheap.seen) == 6
    assert [line.split()[1] for line in dear.seen] == ["9", "9"]
    assert dear.seen[0] == f"{BY_MACS[5].name} 9"  # the best by the cheap score
    assert report.macs == BY_MACS[5].macs
    assert [row["budget"] for row in rows_of(run)] == ["score 1"] * 6 + ["score 9"] * 2
    assert len(json.loads((run / "search.json").read_text())["looks"]) == 2
    search(run, **{**told, "looks": [6, 3]})
    assert (len(cheap.seen), len(dear.seen)) == (6, 3)
    with pytest.raises(nl.FormatError, match="score"):
        search(run, **{**told, "score": [cheap, cheap]})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"strategy": "ego", "looks": [9, 3], "score": ["inherit", "train", "train"]}, "looks has 2 parts where"),
        ({"strategy": "ego", "score": "guess"}, "score 'guess': unknown; known are inherit, train"),
        ({"strategy": "ego", "looks": [9, 0]}, "--looks 0: must be at least 1"),
        ({"score": "inherit"}, "compares finalists by one score of your own"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(nl.NetlatheError, match=message):
        search(tmp_path / "run", **more)
    assert not (tmp_path / "run").exists()


def test_scores_are_read_from_a_command_line(table: Path) -> None:
    assert parse_scores("inherit") == "inherit"
    assert parse_scores(f"inherit,{table}:accuracy,train") == ["inherit", ScoreTable.read(table, "accuracy"), "train"]
    assert parse_counts("--looks", "200,40") == [200, 40]
    with pytest.raises(nl.NetlatheError, match="--looks many: expected a whole number, or several"):
        parse_counts("--looks", "many")
