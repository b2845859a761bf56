"""The arithmetic of the search's benchmarks: best feasible networks, the proxy, memory of a step, curves."""

import numpy as np
import pytest
from torch import nn

from benchmarks import headline
from benchmarks.search_bytes import step_bytes
from benchmarks.search_common import Results, small_mobilenet_v2
from benchmarks.search_memory import CANDIDATES, space_of
from benchmarks.search_regret.proxy import ProxyConfig, search_proxy
from benchmarks.search_regret.truth import SHARES, Truth, methods
from netlathe.archspace.presets import nas_bench_macro
from netlathe.archspace.resources import data_path
from netlathe.search.costs import CostTable


@pytest.fixture(scope="module")
def truth() -> Truth:
    table = CostTable.of_blocks(nas_bench_macro(), lambda block: block.graph().macs / 1e7, name="cost", unit="ms")
    return Truth.read(data_path("nas_bench_macro_cifar10.parquet"), table)


def test_every_network_has_the_latency_of_its_path(truth):
    path = (0, 1, 2, 0, 1, 2, 0, 1)
    assert truth.latency_ms[path] == pytest.approx(truth.table.cost(path))
    assert truth.latency_ms.max() == pytest.approx(truth.table.most_expensive)


def test_the_best_feasible_network_has_no_regret_and_one_that_is_too_slow_may_have_less(truth):
    limit_ms = truth.limit_ms(0.45)
    accuracy = np.where(truth.latency_ms <= limit_ms, truth.accuracy, 0.0)
    best = np.unravel_index(accuracy.argmax(), accuracy.shape)
    assert truth.judge(best, limit_ms)["regret"] == 0
    assert truth.judge(best, limit_ms)["ratio"] <= 1
    top = np.unravel_index(truth.accuracy.argmax(), accuracy.shape)
    assert truth.judge(top, limit_ms)["regret"] < 0 < truth.judge(top, limit_ms)["ratio"] - 1


def test_a_table_that_lacks_networks_is_refused(truth, tmp_path):
    (tmp_path / "t.csv").write_text("arch,acc1,acc2,acc3\n00000000,1,1,1\n")
    with pytest.raises(ValueError, match="6560 of 6561"):
        Truth.read(tmp_path / "t.csv", truth.table)


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name)
def test_what_the_proxy_decodes_keeps_the_target(truth, method):
    row = search_proxy(truth, method, SHARES[0], 0, ProxyConfig(steps=3, learning_rate=0.02, scale=1, noise=0.01))
    assert row["decode"]["ratio"] <= 1 + 1e-9


def test_a_method_that_needs_microseconds_gets_the_same_constraint_in_them(truth):
    ours, mul_log = methods()[:2]
    path = (1,) * 8
    limit_ms = truth.limit_ms(0.6)
    assert mul_log.constraint(truth.table, limit_ms).limit == 1000 * ours.constraint(truth.table, limit_ms).limit
    assert mul_log.constraint(truth.table, limit_ms).excess(path) == pytest.approx(
        ours.constraint(truth.table, limit_ms).excess(path)
    )


def test_each_saved_activation_is_counted_once_and_weights_and_images_are_not():
    def saved(channels: int) -> int:
        module = nn.Sequential(
            nn.Conv2d(3, channels, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 16, 2, bias=False)
        )
        found = step_bytes(module, module, [], 1, 4, "cpu")
        assert found.peak >= found.saved
        return found.saved

    # float32 of 8 more channels at 4x4: the ReLU's output, and its copy in the order of the linear layer.
    assert saved(16) - saved(8) == 2 * 4 * 8 * 16


@pytest.mark.parametrize("count", CANDIDATES)
def test_memory_is_judged_on_spaces_of_so_many_candidates(count):
    space = space_of(count, 64)
    assert max(len(space.positions[i]) for i in space.searchable) == count
    assert len(space.searchable) == 21


def test_the_small_mobilenet_ends_at_an_eighth_of_the_resolution():
    network = small_mobilenet_v2(1.0, 32, 10)
    assert network.blocks[-2].input_shape == (4, 4, 320)
    assert network.output_shape == (10,)
    assert 2.2e6 < network.parameters < 2.3e6


def test_latency_at_equal_accuracy_is_read_off_the_points_that_no_other_beats():
    points = [(0.6, 1.0), (0.8, 4.0), (0.7, 9.0)]
    sign, value = headline.curve_ms(0.7, points)
    assert sign == ""
    assert value == pytest.approx(2.0)
    assert headline.curve_ms(0.9, points) == (">", pytest.approx(4.0))
    assert headline.curve_ms(0.5, points) == ("<", pytest.approx(1.0))


def test_results_of_other_settings_are_not_mixed(tmp_path):
    path = tmp_path / "r.json"
    Results(path, "search-regret", {"seeds": 1}).put("a", {"x": 1})
    assert "a" in Results(path, "search-regret", {"seeds": 1})
    with pytest.raises(SystemExit, match="other settings"):
        Results(path, "search-regret", {"seeds": 2})
