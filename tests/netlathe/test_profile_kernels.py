"""`netlathe profile --space kernels` and `--models`: what a call measures, and what is learnt from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from test_cli import answer, netlathe, refusal

from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.graph import GraphBuilder
from netlathe.archspace.kernel_space import kernel_shares
from netlathe.archspace.kernels import kernels_of
from netlathe.archspace.networks import network
from netlathe.archspace.ops import Activation, ActivationKind, Conv2d, Opaque
from netlathe.archspace.presets import tiny
from netlathe.archspace.profile_file import ProfileFile
from netlathe.archspace.records import Setup, Status
from netlathe.choosing import FEWEST_OF_GROUP, choose_items
from netlathe.fitting import fit
from netlathe.kernel_items import KernelSpace, kernel_work
from netlathe.predictor import LatencyPredictor
from netlathe.predictor.features.samples import steady
from netlathe.profiling import profile

SETUP = Setup("bench", "soc", "linux", "litert", "2.3.0", "xnnpack")

QUICK = ("--networks", 3, "--rounds", 3)


@pytest.fixture(scope="module")
def kernel_profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small profile of kernels of this CPU, with a few networks."""
    path = tmp_path_factory.mktemp("kernels") / "k.sqlite"
    found = answer("profile", "--space", "kernels", "--budget", 60, *QUICK, "--output", path)
    assert len(found["chosen"]) == 60
    return path


def test_a_profile_of_kernels_is_continued_by_others(kernel_profile: Path) -> None:
    before = LatencyPredictor("none").fit(_records(kernel_profile)).n_blocks_
    found = answer("profile", "--space", "kernels", "--budget", 5, *QUICK, "--output", kernel_profile)
    assert len(found["chosen"]) == 5
    assert LatencyPredictor("none").fit(_records(kernel_profile)).n_blocks_ == before + 5


def test_a_fit_on_kernels_predicts_networks_by_their_kernels(kernel_profile: Path) -> None:
    model = fit(kernel_profile, residual="none").predictor
    assert model.model_.unit == "cpu_kernel"
    assert model.n_networks_ == len(steady([r for r in _records(kernel_profile) if r.kind == "network"]))
    graph = network("mobilenet_v2").graph()
    assert model.knows([graph]).all()
    low_ms, high_ms = model.predict_interval([graph])
    assert 0 < low_ms[0] < model.predict([graph])[0] < high_ms[0]


def test_the_anchors_of_a_campaign_are_no_kernels_and_not_fitted_on(kernel_profile: Path) -> None:
    records = _records(kernel_profile)
    several = [r.name for r in records if r.kind == "block" and len(kernels_of(r.graph)) > 1]
    assert several  # blocks that every round visits
    fitted = LatencyPredictor("none").fit(records)
    blocks = [r for r in records if r.kind == "block" and r.status is Status.OK]
    assert fitted.n_blocks_ == len(blocks) - len(several)


def test_the_very_kernels_of_a_model_are_measured_and_the_model_with_them(tmp_path: Path) -> None:
    graph = tiny(8).sample_over_macs(1, 0)[0].graph()
    path = tmp_path / "m.sqlite"
    report = profile(path, models=[graph], networks=1, rounds=3, device="local")
    keys = {record.graph.key for record in report.devices[0].summary.records}
    assert {kernel.key for kernel in kernels_of(graph)} | {graph.key} == keys
    assert report.space == "kernels of graph"


def test_models_are_read_from_files_and_names(tmp_path: Path) -> None:
    space = KernelSpace.of_models(["mobilenet_v2_0.5_96"])
    work = kernel_work(space, SETUP, networks=12, seed=0)
    assert [item.name for item in work.items if item.kind == "network"] == ["mobilenet_v2_0.5_96"]
    with pytest.raises(Exception, match="no such file"):
        KernelSpace.of_models([tmp_path / "none.onnx"])


def test_kernels_without_a_form_for_the_runtime_are_left_out_and_named() -> None:
    builder = GraphBuilder((1, 8, 8, 4))
    x = builder.add("conv", Conv2d(4), 0, scope="b0")
    x = builder.add("strange", Opaque("Strange", ((1, 8, 8, 4),)), x, scope="b1")
    graph = builder.build(builder.add("act", Activation(ActivationKind.SIGMOID), x, scope="b2"))
    work = kernel_work(KernelSpace.of_models([graph]), SETUP, networks=0, seed=0)
    assert list(work.left_out) == ["opaque"]
    assert "Strange" in work.left_out["opaque"] or "opaque" in work.left_out["opaque"]
    assert sorted(work.groups.values()) == ["pointwise", "smooth_activation"]


def test_each_class_gets_a_few_kernels_first_and_then_its_share(tmp_path: Path) -> None:
    work = kernel_work(KernelSpace(), SETUP, networks=0, seed=0)
    groups = set(work.groups.values())
    path = tmp_path / "none.sqlite"
    few = choose_items(work.items, FEWEST_OF_GROUP * len(groups), path, SETUP, 0, work.groups).chosen or []
    assert set(Counter(work.groups[item.graph.key] for item in few).values()) == {FEWEST_OF_GROUP}
    many = choose_items(work.items, 300, path, SETUP, 0, work.groups).chosen or []
    counts, shares = Counter(work.groups[item.graph.key] for item in many), kernel_shares(groups)
    assert len({item.graph.key for item in many}) == 300
    assert all(abs(counts[name] - 300 * share) <= 2 for name, share in shares.items() if 300 * share > 6)


def test_a_choice_makes_up_for_what_the_profile_lacks(tmp_path: Path) -> None:
    work = kernel_work(KernelSpace(), SETUP, networks=0, seed=0)
    pointwise = [item for item in work.items if work.groups[item.graph.key] == "pointwise"][:100]
    with ProfileFile(tmp_path / "p.sqlite", create=True) as file:
        file.add_setup(SETUP)
        file.add_graphs((item.name, item.kind, item.graph) for item in pointwise)
        file.add_round(SETUP, {item.graph.key: [0.1] for item in pointwise}, started_at=1.0)
        for item in pointwise:
            file.set_outcome(SETUP, item.graph.key, Status.OK)
    chosen = choose_items(work.items, 100, tmp_path / "p.sqlite", SETUP, 0, work.groups).chosen or []
    assert "pointwise" not in {work.groups[item.graph.key] for item in chosen}


@pytest.mark.slow
def test_a_profile_of_int8_kernels_prices_a_quantized_file_of_any_network(tmp_path: Path) -> None:
    path, model = tmp_path / "k.sqlite", tmp_path / "k.json"
    words = ("--space", "kernels", "--dtype", "int8", "--budget", 120, *QUICK)
    assert len(answer("profile", *words, "--output", path)["chosen"]) == 120
    answer("fit", path, "--output", model, "--residual", "none", "--splits", "configuration")
    file = tmp_path / "quantized.tflite"
    file.write_bytes(write_tflite(network("mobilenet_v2_0.5_96").graph(), dtype="int8"))
    priced = answer("predict", file, "--predictor", model)
    assert priced["setup"]["dtype"] == "int8"
    assert 0 < priced["low_ms"] < priced["latency_ms"] < priced["high_ms"]
    assert not [warning for warning in priced["warnings"] if "computes in" in warning]


@pytest.mark.parametrize(
    ("device", "dtype", "remedy"),
    [("local", "float16", "profile in float32"), ("onnxruntime", "int8", "netlathe time FILE --device onnxruntime")],
)
def test_a_dtype_that_a_device_does_not_compute_in_is_refused_with_what_to_do(
    device: str, dtype: str, remedy: str, tmp_path: Path
) -> None:
    words = ("--space", "kernels", "--device", device, "--dtype", dtype, "--output", tmp_path / "k.sqlite")
    assert remedy in refusal("profile", *words)


def test_options_of_a_space_of_blocks_are_refused(tmp_path: Path) -> None:
    result = netlathe("profile", "--space", "kernels", "--resolution", "64", "--output", tmp_path / "p.sqlite")
    assert result.exit_code != 0
    assert "--resolution" in result.stderr


def _records(path: Path) -> list:
    with ProfileFile(path) as file:
        return [record for setup in file.setups() for record in file.records(setup)]
