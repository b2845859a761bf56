"""Spaces, architectures and published networks: totals against the papers, JSON both ways, clear refusals."""

from __future__ import annotations

import json
import math
import random

import pandas as pd
import pytest

from netlathe.archspace.blocks import ConvBlock, LinearHead, MBConv, Skip
from netlathe.archspace.errors import FormatError, SpaceError
from netlathe.archspace.networks import NETWORKS, mobilenet_v2, network
from netlathe.archspace.presets import PRESETS, load_space, make_divisible, nas_bench_macro, proxyless, tiny
from netlathe.archspace.resources import data_path
from netlathe.archspace.spaces import Architecture, SearchSpace


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("mobilenet_v2", 300_774_272, 3_504_872),
        ("mobilenet_v2_0.5", 97_131_840, 1_968_680),
        ("mnasnet_b1", 314_415_872, 4_383_312),
        ("proxyless_mobile", 320_427_584, 4_080_512),
        ("proxyless_cpu", 439_243_864, 4_361_648),
        ("proxyless_gpu", 465_260_160, 7_119_848),
    ],
)
def test_published_networks_have_their_published_macs_and_parameters(name: str, macs: int, parameters: int) -> None:
    assert (network(name).macs, network(name).parameters) == (macs, parameters)


def test_mobilenet_v2_1_4_rounds_to_the_published_582_m_macs_and_6_11_m_parameters() -> None:
    wide = network("mobilenet_v2_1.4")
    assert (round(wide.macs / 1e6), round(wide.parameters / 1e6, 2)) == (582, 6.11)


def test_all_6561_networks_of_nas_bench_macro_have_the_tables_params_and_flops() -> None:
    table = pd.read_parquet(data_path("nas_bench_macro_cifar10.parquet"))
    space = nas_bench_macro()
    assert len(table) == space.size == 6561
    # Costs add up over blocks, so one pass over the 24 distinct (position, candidate) pairs prices every row.
    macs = [[b.graph().macs for b in candidates] for candidates in space.positions]
    parameters = [[b.graph().parameters for b in candidates] for candidates in space.positions]
    for arch, params, flops in zip(table["arch"], table["params"], table["flops"], strict=True):
        digits = [0, *map(int, arch), 0, 0]
        assert sum(row[d] for row, d in zip(macs, digits, strict=True)) == flops, arch
        assert sum(row[d] for row, d in zip(parameters, digits, strict=True)) == params, arch


def test_an_architectures_cost_is_the_sum_over_its_blocks() -> None:
    architecture = nas_bench_macro().architecture([0, 1, 2, 0, 1, 2, 0, 1])
    assert architecture.macs == sum(b.graph().macs for b in architecture.blocks)
    assert architecture.parameters == sum(b.graph().parameters for b in architecture.blocks)


def test_proxyless_has_the_papers_shape() -> None:
    space = proxyless()
    assert len(space.searchable) == 21
    counts = [len(space.positions[i]) for i in space.searchable]
    assert counts == [6, 7, 7, 7] * 5 + [6]
    assert space.input_shape == (224, 224, 3)
    assert space.classes == 1000
    assert [p[0].output_shape[-1] for p in space.positions[2:]][::4] == [24, 40, 80, 96, 192, 320]


def test_proxyless_width_and_resolution_scale() -> None:
    space = proxyless(resolution=192, width=0.5, classes=7)
    assert space.input_shape == (192, 192, 3)
    assert space.positions[0][0].output_shape == (96, 96, 16)
    assert space.classes == 7


@pytest.mark.parametrize("resolution", [8, 11, 16, 32])
def test_tiny_serves_every_small_resolution_with_about_100_blocks(resolution: int) -> None:
    space = tiny(resolution)
    assert len(space.searchable) == 10
    assert 85 <= len(space.distinct_blocks()) <= 115


@pytest.mark.parametrize("name", PRESETS)
def test_a_space_survives_json(name: str, tmp_path) -> None:
    space = load_space(name)
    space.save(tmp_path / "space.json")
    assert load_space(str(tmp_path / "space.json")) == space


@pytest.mark.parametrize("name", NETWORKS)
def test_an_architecture_survives_json(name: str, tmp_path) -> None:
    network(name).save(tmp_path / "a.json")
    assert Architecture.load(tmp_path / "a.json") == network(name)


@pytest.mark.parametrize("name", PRESETS)
def test_choices_invert_architecture(name: str) -> None:
    space, rng = load_space(name), random.Random(7)
    for _ in range(20):
        architecture = space.sample(rng)
        assert space.architecture(space.choices(architecture)) == architecture


def test_segments_of_a_networks_graph_are_its_blocks_without_identities() -> None:
    space = tiny(16)
    architecture = space.architecture([0, 9] * 5)
    assert any(isinstance(b, Skip) for b in architecture.blocks)
    expected = [b.graph().key for b in architecture.blocks if b.graph().nodes]
    assert [segment.key for segment in architecture.graph().segments()] == expected


def test_distinct_blocks_leave_out_the_identity() -> None:
    assert all(block.graph().nodes for block in proxyless().distinct_blocks())
    assert len(proxyless().distinct_blocks()) == 70


@pytest.mark.parametrize(
    ("channels", "expected"), [(16, 16), (24 * 0.35, 8), (11, 16), (32 * 0.75, 24), (44.8, 48), (3, 8)]
)
def test_make_divisible_follows_mobilenet(channels: float, expected: int) -> None:
    assert make_divisible(channels) == expected


def test_choices_that_do_not_exist_are_refused() -> None:
    space = nas_bench_macro()
    with pytest.raises(SpaceError, match="8 searchable positions, got 2"):
        space.architecture([0, 0])
    with pytest.raises(SpaceError, match="no number 3"):
        space.architecture([3] * 8)


def test_an_architecture_of_another_space_is_refused_with_the_stranger_named() -> None:
    with pytest.raises(SpaceError, match=r"not in space 'nas-bench-macro'|blocks, not"):
        nas_bench_macro().choices(mobilenet_v2())
    other = list(nas_bench_macro().architecture([1] * 8).blocks)
    other[2] = MBConv(64, 64, 16, 16, kernel=7, expand=3)
    with pytest.raises(SpaceError, match="mbconv_k7_e3"):
        nas_bench_macro().choices(Architecture("x", tuple(other)))


def test_blocks_that_do_not_follow_on_each_other_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"block 0 .* gives .* block 1 .* takes"):
        Architecture("broken", (ConvBlock(3, 8, 8, 8), LinearHead(16, 10, 8, 8)))


def test_candidates_of_unlike_shape_are_refused() -> None:
    with pytest.raises(SpaceError, match="differ in shape"):
        SearchSpace("broken", ((ConvBlock(3, 8, 8, 8), ConvBlock(3, 8, 8, 8, 2)),))


@pytest.mark.parametrize("positions", [(), ((),), ((ConvBlock(3, 8, 8, 8), ConvBlock(3, 8, 8, 8)),)])
def test_an_empty_or_repeating_space_is_refused(positions: tuple[tuple[ConvBlock, ...], ...]) -> None:
    with pytest.raises(SpaceError):
        SearchSpace("broken", positions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[1]", "expected a netlathe architecture"),
        ('{"schema": "netlathe.space/1"}', "expected a netlathe architecture, found netlathe.space/1"),
        ('{"schema": "netlathe.architecture/99"}', "newer than this netlathe"),
        ('{"schema": "netlathe.architecture/1", "name": "x"}', "'blocks' is missing"),
        ('{"schema": "netlathe.architecture/1", "name": "x", "blocks": ["conv_q"]}', "unknown block name 'conv_q'"),
        ('{"schema": "netlathe.architecture/1", "name": "x", "blocks": []}', "has no blocks"),
        ('{"schema": "netlathe.architecture/1", "name": "x", "blocks": 3}', "not an architecture"),
    ],
)
def test_a_bad_architecture_file_is_one_clear_error_with_its_path(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        Architecture.load(path)
    assert str(path) in str(caught.value)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(SpaceError, match="proxyless_gpu"):
        network("resnet50")
    with pytest.raises(SpaceError, match="tiny"):
        load_space("huge")
    with pytest.raises(SpaceError, match=r"width must lie"):
        network("mobilenet_v2_0.001")


@pytest.mark.parametrize(
    "options", [{"width": float("nan")}, {"width": -1.0}, {"width": float("inf")}, {"resolution": 0}, {"classes": -3}]
)
def test_impossible_options_are_refused_by_name(options) -> None:
    (name,) = options
    with pytest.raises(SpaceError, match=name):
        load_space("tiny", **options)


def test_options_do_not_apply_to_a_space_from_a_file(tmp_path) -> None:
    tiny(8).save(tmp_path / "s.json")
    with pytest.raises(SpaceError, match="resolution cannot be changed"):
        load_space(str(tmp_path / "s.json"), resolution=16)


def test_a_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "s.json"
    tiny(8).save(path)
    tiny(16).save(path)
    assert json.loads(path.read_text())["schema"] == "netlathe.space/1"
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("name", ["proxyless", "nas-bench-macro", "tiny"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 16])
def test_networks_to_time_are_different_and_as_many_as_asked_for(name: str, count: int) -> None:
    space = load_space(name)
    networks = space.sample_over_macs(count, seed=0)
    assert len({n.graph().key for n in networks}) == len(networks) == count
    for one in networks:
        space.choices(one)  # raises unless it is in the space


def test_networks_to_time_hold_the_lightest_and_the_heaviest() -> None:
    space = nas_bench_macro()
    macs = [n.macs for n in space.sample_over_macs(8, seed=0)]
    assert min(macs) == space.architecture([0] * 8).macs
    assert max(macs) == space.architecture([2] * 8).macs


def test_equal_seeds_choose_equal_networks() -> None:
    assert tiny(8).sample_over_macs(9, seed=1) == tiny(8).sample_over_macs(9, seed=1)
    assert tiny(8).sample_over_macs(9, seed=1) != tiny(8).sample_over_macs(9, seed=2)


@pytest.mark.parametrize("name", ["proxyless", "tiny"])
def test_the_reference_is_3x3_with_the_largest_expansion_everywhere(name: str) -> None:
    space = load_space(name)
    chosen = [space.architecture(space.reference).blocks[i] for i in space.searchable]
    assert all(isinstance(b, MBConv) and (b.kernel, b.expand) == (3, 6) for b in chosen)


def test_a_main_path_is_the_widest_network_of_middle_kernels() -> None:
    space = SearchSpace("m", (tuple(MBConv(8, 8, 8, 8, kernel=k, expand=e) for e in (3, 6) for k in (3, 5, 7)),))
    assert space.main_path == (4,)


def test_a_main_path_falls_back_to_the_most_parameters() -> None:
    convolutions = SearchSpace("c", ((ConvBlock(3, 8, 8, 8, kernel=1), ConvBlock(3, 8, 8, 8, kernel=5)),))
    assert convolutions.main_path == (1,)


def test_a_space_of_chains_is_a_decision_space() -> None:
    space = tiny(8)
    assert math.prod(space.option_counts) == space.size
    choices = space.reference
    assert space.graph(choices, 3) == space.architecture(choices).graph(3)
    assert space.network_name(choices) == space.architecture(choices).name
