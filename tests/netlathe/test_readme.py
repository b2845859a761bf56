"""What README.md and docs/ show works as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from netlathe.archspace.block_names import parse_block
from netlathe.archspace.forms.tflite_audit import audit_tflite
from netlathe.archspace.networks import NETWORKS, network
from netlathe.archspace.presets import PRESETS, load_space, tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.tables import read_records
from netlathe.predictor import LatencyPredictor, shipped_names
from netlathe.profiler import Plan, open_device, run_campaign
from netlathe.search import SearchConfig
from netlathe.stages import work_items
from netlathe.targets import load_goal
from netlathe.training import TrainConfig
from tests.documents import DOCUMENTS, README, ROOT, inline_code, python_blocks, shell_lines

PREDICT, SEARCH, PYTHON, CHECK, COMPRESS, PROCESSES, PROFILE = (
    ROOT / "docs" / f"{name}.md"
    for name in ("predict", "search", "python", "check", "compress", "several-processes", "profile")
)
TEXT = "".join(path.read_text() for path in DOCUMENTS)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the profile that the documents' code reads."""
    folder = tmp_path_factory.mktemp("readme")
    with open_device("local") as device, ProfileFile(folder / "my_cpu.sqlite", create=True) as profile:
        items = work_items(tiny(), networks=4, batch=1, seed=0)
        run_campaign(device, items, profile, Plan(min_rounds=3, max_rounds=3))
    return folder


def test_all_python_that_documents_show_is_run_here() -> None:
    walked = (Path(__file__).parent / "test_pages.py").read_text()
    names = {path: str(path.relative_to(ROOT / "docs")) for path in DOCUMENTS if path != README}
    others = [path for path in DOCUMENTS if f'"{names.get(path)}"' not in walked]
    counts = {path: len(blocks) for path in others if (blocks := python_blocks(path))}
    here = {README: 1, PREDICT: 3, SEARCH: 2, PYTHON: 5, CHECK: 1, COMPRESS: 1, PROCESSES: 1}
    assert counts == {**here, PROFILE: 1}  # that of profile needs the guide's records, and is run with them


def test_the_python_of_predict_and_search_runs(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (many, query, adapt), (search, _) = python_blocks(PREDICT), python_blocks(SEARCH)
    scope: dict[str, object] = {}
    exec(many, {})
    assert ["'latency_ms'" in line for line in capsys.readouterr().out.splitlines()] == [True, True, False]
    exec(query, scope)
    scope["model"].save("tiny.json")  # type: ignore[attr-defined]
    assert float(capsys.readouterr().out.strip("[] \n")) > 0
    measured = [r for r in read_records("my_cpu.sqlite") if r.kind == "block" and r.name.startswith("mbconv")]
    blocks = [parse_block(record.name) for record in measured]
    columns = ("height", "cin", "cout", "kernel", "stride", "expand")
    table = pd.DataFrame([{"op": "mbconv", **{name: getattr(b, name) for name in columns}} for b in blocks])
    times_ms = [record.latency_ms for record in measured]
    table.assign(old_ms=times_ms, new_ms=[2 * ms for ms in times_ms]).to_csv("blocks.csv", index=False)
    exec(adapt, {})
    assert "array" in capsys.readouterr().out
    short = search.replace("0.6 * table.most_expensive)])", "0.6 * table.most_expensive)], SHORT)")
    short = short.replace("(32, 32))", "(32, 32), limit=64)")
    assert "SHORT" in short
    assert "limit" in short
    scope["SHORT"] = SearchConfig(start_epochs=1, warmup_epochs=1, epochs=1, finalists=8, finalist_images=16)
    exec(short, scope)
    assert "MBConv(" in capsys.readouterr().out


def test_the_python_of_the_strategies_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(python_blocks(SEARCH)[1], {})
    assert re.fullmatch(r"tiny-\d{10}\n", capsys.readouterr().out)


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer rounds and epochs, the quickest fit, and a target that any machine meets."""
    monkeypatch.chdir(tmp_path)
    (first,) = python_blocks(README)
    for shown, quick in (
        ("progress=True)", "rounds=3, networks=4)"),
        ('cpu.sqlite", "my_cpu.json")', 'cpu.sqlite", "my_cpu.json", residual="none", splits=["configuration"])'),
        ("ms=0.3)", "ms=50.0)"),
        ('device="local", output', "limit_images=64, config=SHORT, training=SHORT_TRAINING, output"),
    ):
        assert shown in first
        first = first.replace(shown, quick)
    config = SearchConfig(start_epochs=1, warmup_epochs=0, epochs=1, finalists=2)
    exec(first, {"SHORT": config, "SHORT_TRAINING": TrainConfig(epochs=1)})
    assert (tmp_path / "runs/mine/report.json").is_file()


def test_the_python_of_the_python_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    predicting, weights, precisions, images, training = python_blocks(PYTHON)
    exec(predicting, {})
    assert len(re.findall(r"[\d.]+ ms \([\d.]+ to [\d.]+\)", capsys.readouterr().out)) == 2
    scope: dict[str, object] = {}
    exec(weights, scope)
    exec(precisions, {})
    exec(images, {})
    assert capsys.readouterr().out.splitlines()[-1] == "()"
    exec(training, {})
    assert capsys.readouterr().out.splitlines()[-1].endswith(" 0.5 randaugment")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.onnx", "mine.tflite", "mixed.tflite"}
    assert {op.precision for op in audit_tflite(tmp_path / "mixed.tflite") if op.has_weights} == {"float32", "int8"}


def test_the_python_of_the_guide_to_checks_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks(CHECK)
    exec(block, {})
    assert re.fullmatch(r"b\d\d/\w+: [\d.]+ of [\d.]+ ms, bound by compute\n", capsys.readouterr().out)


@pytest.mark.slow
def test_the_python_of_the_guide_to_compressing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = python_blocks(COMPRESS)
    exec(block, {})
    assert len(re.findall(r"^b\d\d/\w+ \d+ \d+$", capsys.readouterr().out, re.MULTILINE)) == 4


def test_the_python_of_several_processes_runs_in_one(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks(PROCESSES)
    exec(block, {})
    assert capsys.readouterr().out == "process 0 of 1\n"


def test_query_from_python_takes_five_lines() -> None:
    assert len([line for line in python_blocks(PREDICT)[0].splitlines() if line.strip()]) <= 5


def test_every_file_of_the_tree_exists() -> None:
    tree = (ROOT / "CONTRIBUTING.md").read_text().split("## What is where")[1].split("```")[1]
    folder = ROOT
    for line in tree.strip().splitlines():
        names = re.findall(r"[a-z0-9_/]+(?:\.py|/)", re.split(r"\s{3,}|  (?=[a-zA-Z])", line.strip())[0])
        for name in names:
            if not line.startswith(" "):
                folder = ROOT / name
            assert (folder if not line.startswith(" ") else folder / name).exists(), line


def test_the_targets_that_are_shown_on_devices_that_ship_can_be_met() -> None:
    space = load_space("proxyless")
    of_searches = "".join(path.read_text() for path in DOCUMENTS if path != COMPRESS)
    shown = re.findall(r"--target ([\w./-]+)=([\d.]+)", of_searches)
    shipped = [f"{name}={ms}" for name, ms in shown if name in shipped_names()]
    assert shipped
    (constraint,) = load_goal(None, None, shipped, []).constraints(space)
    table = constraint.table
    assert table.cost(table.cheapest) < constraint.limit < table.most_expensive


def test_every_predictor_that_is_given_a_network_knows_it() -> None:
    lines = [line for path in DOCUMENTS for line in [*shell_lines(path), *inline_code(path)]]
    shown = [line for line in lines if re.match(r"netlathe (?:predict|compare|show) ", line)]
    priced = 0
    for line in shown:
        words = line.split()
        for name in (word for word in words if word in shipped_names()):
            graphs = [network(word).graph() for word in words if word in NETWORKS]
            assert LatencyPredictor.load(name).knows(graphs).all(), line
            priced += len(graphs)
    assert priced


def test_every_preset_is_named() -> None:
    assert all(f"`{name}`" in TEXT for name in PRESETS)
