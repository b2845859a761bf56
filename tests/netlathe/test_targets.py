"""What a search is told to meet: parsing, limits from tables, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.errors import FormatError, NetlatheError
from netlathe.archspace.presets import PRESETS, load_space
from netlathe.archspace.records import Setup
from netlathe.archspace.spaces import SearchSpace
from netlathe.predictor import LatencyPredictor, UnknownOpError, shipped_names
from netlathe.pricing import Priced
from netlathe.search import TargetError
from netlathe.targets import check_names, load_goal, parse_milliseconds

CHOICES = (*(MBConv(8, 8, 8, 8, kernel=kernel, expand=3) for kernel in (3, 5)), Skip(8, 8, 8, 8))
SPACE = SearchSpace("small", ((ConvBlock(3, 8, 16, 16, 2),), CHOICES, CHOICES, (LinearHead(8, 10, 8, 8),)))
SETUP = Setup("bench", "cpu", "os", "litert", "2")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor of a machine that does a million MACs in a millisecond."""
    path = tmp_path_factory.mktemp("model") / "bench.json"
    blocks = SPACE.distinct_blocks()
    LatencyPredictor("none").fit(blocks, [1e-6 * b.graph().macs for b in blocks], setup=SETUP).save(path)
    return path


def table(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_short_form_and_the_long_one_give_targets_in_their_order(model_file: Path) -> None:
    goal = load_goal(str(model_file), 3.0, ["pixel4-cpu=40", "pixel4-gpu=1.5"], [])
    assert [(t.name, t.limit_ms) for t in goal.targets] == [("bench", 3.0), ("pixel4-cpu", 40.0), ("pixel4-gpu", 1.5)]
    assert goal.main.name == "bench"
    assert goal.at(2.0).main.limit_ms == 2.0
    assert goal.at(2.0).targets[1:] == goal.targets[1:]


def test_macs_and_parameters_are_limited_by_what_the_network_counts(model_file: Path) -> None:
    goal = load_goal(str(model_file), 3.0, [], ["macs=1e6", "parameters=1e5"])
    _, macs, parameters = goal.constraints(SPACE)
    for path in ((0, 0), (1, 2), (2, 2)):
        network = SPACE.architecture(path)
        assert macs.table.cost(path) == pytest.approx(network.macs)
        assert parameters.table.cost(path) == pytest.approx(network.parameters)


def test_a_cost_per_block_comes_from_the_csv_and_the_identity_is_free(model_file: Path, tmp_path: Path) -> None:
    names = [block.name for block in SPACE.distinct_blocks()]
    lines = "".join(f"{name},{value}\n" for value, name in enumerate(names, start=1))
    energy = table(tmp_path / "energy.csv", "block,mj\n" + lines)
    (_, constraint) = load_goal(str(model_file), 3.0, [], [f"{energy}:mj=20"]).constraints(SPACE)
    assert constraint.table.name == "mj"
    assert constraint.limit == 20.0
    assert constraint.table.cost((2, 2)) == 1 + 4  # the stem and the head are its first and last
    assert constraint.table.cost((0, 1)) == 1 + 2 + 3 + 4


def test_a_block_that_the_csv_lacks_is_named(model_file: Path, tmp_path: Path) -> None:
    energy = table(tmp_path / "energy.csv", f"block,mj\n{SPACE.positions[0][0].name},1\n")
    with pytest.raises(FormatError, match=r"energy\.csv: has no line for block linear_c8-10_8x8"):
        load_goal(str(model_file), 3.0, [], [f"{energy}:mj=20"]).constraints(SPACE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("block,uj\na,1\n", "no column 'mj', only block, uj"),
        ("name,mj\na,1\n", "no column 'block'"),
        ("", "no lines"),
        ("block,mj\na,1\na,2\n", "line 3 tells of block a again"),
        ("block,mj\na,\n", "line 2 has ''"),
        ("block,mj\na\n", "line 2 has None"),
        ("mj,block\n1\n", "line 2 names no block"),
        ("mj,block\n1,\n", "line 2 names no block"),
        ("block,mj\na,nan\n", "line 2 has 'nan'"),
        ("block,mj\na,-1\n", "at least zero"),
    ],
)
def test_a_table_that_is_none_is_refused(model_file: Path, tmp_path: Path, text: str, message: str) -> None:
    energy = table(tmp_path / "energy.csv", text)
    with pytest.raises(FormatError, match=message):
        load_goal(str(model_file), 3.0, [], [f"{energy}:mj=20"])


def test_a_table_that_is_not_there_is_refused(model_file: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read as CSV"):
        load_goal(str(model_file), 3.0, [], ["none.csv:mj=20"])


@pytest.mark.parametrize(
    ("targets", "limits", "message"),
    [
        (["pixel4-cpu"], [], "--target pixel4-cpu: expected PREDICTOR=MS"),
        (["=3"], [], "expected PREDICTOR=MS"),
        (["pixel4-cpu=fast"], [], "fast is not a number above zero"),
        (["pixel4-cpu=0"], [], "0 is not a number above zero"),
        (["pixel4-cpu=inf"], [], "inf is not a number above zero"),
        (["pixel4-cpu=1", "pixel4-cpu=2"], [], "pixel4-cpu is named twice"),
        ([], ["macs"], "--limit macs: expected macs=300e6"),
        ([], ["flops=1"], "--limit flops: unknown"),
        ([], ["energy.txt:mj=1"], "unknown"),
        ([], ["macs=-1"], "-1 is not a number above zero"),
        ([], ["macs=1e6", "macs=2e6"], "--limit macs: given twice, as 1e.06 and 2e.06"),
        ([], ["memory-kb=1", "memory-kb=1"], "--limit memory-kb: given twice"),
    ],
)
def test_what_does_not_parse_is_refused(model_file: Path, targets: list[str], limits: list[str], message: str) -> None:
    with pytest.raises(NetlatheError, match=message):
        load_goal(str(model_file), 3.0, targets, limits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, None, None, []), "say what to meet"),
        (("m.json", None, None, []), "say in --target-ms"),
        ((None, 3.0, None, []), "need the --predictor"),
        ((None, None, "3,4", ["m.json=3"]), "need the --predictor"),
        (("m.json", 3.0, "3,4", []), "say the same thing"),
    ],
)
def test_options_that_leave_open_what_to_meet_are_refused(
    given: tuple[str | None, float | None, str | None, list[str]], message: str
) -> None:
    with pytest.raises(NetlatheError, match=message):
        check_names(*given)


def test_several_targets_are_sorted_and_must_differ() -> None:
    assert parse_milliseconds("30, 20,40") == [20.0, 30.0, 40.0]
    with pytest.raises(NetlatheError, match="at least two"):
        parse_milliseconds("20,20")
    with pytest.raises(NetlatheError, match="nothing is not a number"):
        parse_milliseconds("20,")


def test_targets_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(NetlatheError, match=r"20\.00001 and 20\.00002 would share the folder 20ms"):
        parse_milliseconds("10,20.00001,20.00002")


def test_predictors_of_one_file_name_are_told_apart_by_their_folders(model_file: Path, tmp_path: Path) -> None:
    files = [tmp_path / name / "predictor.json" for name in ("pixel", "host", "host/again")]
    blocks = SPACE.distinct_blocks()
    for speed, file in enumerate(files[:2], start=1):
        file.parent.mkdir()
        times_ms = [1e-6 * speed * b.graph().macs for b in blocks]
        LatencyPredictor("none").fit(blocks, times_ms, setup=SETUP).save(file)
    goal = load_goal(str(model_file), 3.0, [f"{files[1]}=2"], [])
    assert [t.name for t in goal.targets] == ["bench", "predictor"]
    goal = load_goal(str(files[0]), 3.0, [f"{files[1]}=2"], [])
    assert [t.name for t in goal.targets] == ["pixel/predictor", "host/predictor"]
    assert [c.table.name for c in goal.constraints(SPACE)] == [
        "latency on pixel/predictor",
        "latency on host/predictor",
    ]
    files[2].parent.mkdir()
    shutil.copy(files[0], files[2])
    with pytest.raises(NetlatheError, match="pixel/predictor and again/predictor are equal"):
        load_goal(str(files[0]), 3.0, [f"{files[2]}=2"], [])


def test_a_table_from_a_spreadsheet_may_begin_with_a_byte_order_mark(model_file: Path, tmp_path: Path) -> None:
    lines = "".join(f"{block.name},1\n" for block in SPACE.distinct_blocks())
    (tmp_path / "energy.csv").write_bytes(("block,mj\n" + lines).encode("utf-8-sig"))
    (_, constraint) = load_goal(str(model_file), 3.0, [], [f"{tmp_path / 'energy.csv'}:mj=20"]).constraints(SPACE)
    assert constraint.table.cost((2, 2)) == 2


def test_limits_that_only_contradict_each_other_are_refused_before_the_search(model_file: Path, tmp_path: Path) -> None:
    macs = [SPACE.architecture([k, k]).macs for k in range(3)]
    costs = {**dict.fromkeys(SPACE.distinct_blocks(), 1.0), CHOICES[-1]: 5.0}
    lines = "".join(f"{block.name},{cost}\n" for block, cost in costs.items())
    energy = table(tmp_path / "energy.csv", "block,mj\n" + lines)  # what computes nothing costs most
    least, most = min(macs), 4.0
    load_goal(str(model_file), 30.0, [], [f"macs={least}"]).constraints(SPACE)
    load_goal(str(model_file), 30.0, [], [f"{energy}:mj={most}"]).constraints(SPACE)
    with pytest.raises(TargetError):
        load_goal(str(model_file), 30.0, [], [f"macs={least}", f"{energy}:mj={most}"]).constraints(SPACE)


def test_a_limit_below_every_network_says_the_least_and_whose_it_is(model_file: Path) -> None:
    with pytest.raises(TargetError, match=r"meets 1 of parameters: the least is .* of small-22"):
        load_goal(str(model_file), 30.0, [], ["parameters=1"]).constraints(SPACE)


def test_memory_narrows_the_space_to_the_networks_that_fit(model_file: Path) -> None:
    peaks = {b: b.graph().peak_activation_bytes() for b in CHOICES}
    enough = max(peaks.values()) / 1024
    assert load_goal(str(model_file), 3.0, [], [f"memory-kb={enough}"]).narrowed(SPACE) == SPACE
    with pytest.raises(TargetError, match=r"runs in 0\.5 KiB of activations"):
        load_goal(str(model_file), 3.0, [], ["memory-kb=0.5"]).narrowed(SPACE)


def test_a_predictor_that_knows_a_block_nothing_of_names_it() -> None:
    goal = load_goal(None, None, ["pixel4-cpu=40"], [])  # fitted on MBConv blocks alone
    with pytest.raises(
        UnknownOpError, match=r"pixel4-cpu cannot price 1 of the 4 blocks .* such as conv_k3_s2_c3-8_16"
    ):
        goal.constraints(SPACE)
    with pytest.raises(UnknownOpError, match="known to pixel4-cpu-int8-networks, pixel4-cpu-networks, pixel4-gpu"):
        goal.constraints(SPACE)


SHOWN = ("pixel1-cpu", "pixel4-cpu-networks")
"""One predictor of blocks and one of networks; the fast tests ask these."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SHOWN else [pytest.mark.slow]) for name in shipped_names()]
)
def test_every_shipped_predictor_serves_the_presets_that_it_says_and_all_when_asked(name: str) -> None:
    plain, asked = (load_goal(None, None, [f"{name}=1e6"], [], unknown=one) for one in ("refuse", "price"))
    served = Priced.by(name).spaces
    for preset in map(load_space, PRESETS):
        if preset.name in served:
            plain.constraints(preset)
        else:
            with pytest.raises(UnknownOpError, match=f"{name} cannot price"):
                plain.constraints(preset)
        ((table, _),) = ((one.table, one.limit) for one in asked.constraints(preset))
        assert 0 < table.cost(table.cheapest) < table.most_expensive
        assert bool(asked.main.doubts(preset)) == (preset.name not in served)


def test_a_network_of_assumed_blocks_costs_their_sum_and_its_interval_allows_for_them() -> None:
    (target,) = load_goal(None, None, ["pixel4-cpu=40"], [], unknown="price").targets
    space = load_space("proxyless")
    network = space.architecture([0] * len(space.searchable))
    (priced,) = target.model.predict([network])
    blocks = target.model.tabulate([[block] for block in network.blocks]).latency_ms
    assert priced == pytest.approx(float(blocks.sum()) + target.model.network_offset_ms_)
    ((low,), (high,)) = target.model.predict_interval([network])
    assert low < priced / 1.3
    assert priced * 1.3 < high


def test_goals_are_told_apart_by_predictor_target_and_limit(model_file: Path) -> None:
    goal = load_goal(str(model_file), 3.0, [], ["macs=1e6"])
    same = load_goal(str(model_file), 3.0, [], ["macs=1e6"])
    assert goal.to_json() == same.to_json()
    assert goal.to_json() != goal.at(2.0).to_json()
    assert goal.to_json() != load_goal(str(model_file), 3.0, [], ["macs=1e6"], unknown="price").to_json()
    assert goal.to_json() != load_goal("pixel4-cpu", 3.0, [], ["macs=1e6"]).to_json()
    assert goal.to_json() != load_goal(str(model_file), 3.0, [], ["macs=2e6"]).to_json()


def test_tables_agree_with_the_predictor(model_file: Path) -> None:
    goal = load_goal(str(model_file), 3.0, [], [])
    (constraint,) = goal.constraints(SPACE)
    for path in ((0, 1), (2, 0)):
        expected = goal.model.predict([SPACE.architecture(path)])
        np.testing.assert_allclose(constraint.table.cost(path), expected, rtol=1e-9)
