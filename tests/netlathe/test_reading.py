"""Networks of any form as graphs: torch modules and programs, files by any spelling, names of other packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import MappingProxyType, ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

import netlathe as nl
from netlathe.archspace.blocks import ConvBlock
from netlathe.archspace.errors import FormatError, SpaceError
from netlathe.archspace.forms.onnx import write_onnx
from netlathe.archspace.forms.tflite import write_tflite
from netlathe.archspace.ops import Conv2d, FullyConnected, GlobalAvgPool, GroupNorm
from netlathe.cli.app import make_app

pytest.importorskip("onnxscript")


class Residual(nn.Module):
    """What torch users write: BatchNorm, a strided convolution, a shortcut, a gate, attention over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish(), nn.Dropout())
        self.body = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.norm = nn.GroupNorm(2, 8)
        self.mixer = nn.Linear(8, 24)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + torch.sigmoid(self.norm(self.body(x))) * x
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = (t.unflatten(2, (2, 4)).transpose(1, 2) for t in self.mixer(tokens).chunk(3, 2))
        weights = torch.softmax(query @ key.transpose(2, 3) / 2, -1)
        return self.head((weights @ value).transpose(1, 2).flatten(2).mean(1))


def counted(module: nn.Module, *inputs: Tensor) -> int:
    """MACs by torch's own counter."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*inputs)
    return counter.get_total_flops() // 2


def test_a_modules_macs_are_what_torch_counts() -> None:
    x = torch.zeros(2, 3, 16, 16)
    graph = nl.read(Residual(), x)
    assert graph.inputs == ((2, 16, 16, 3),)
    assert graph.output_shape == (2, 5)
    assert graph.macs == counted(Residual(), x)
    assert not graph.opaque_nodes
    assert GroupNorm(2, graph.nodes[4].op.epsilon) in [node.op for node in graph.nodes]  # type: ignore[attr-defined]


def test_a_module_stays_as_it_is() -> None:
    module = Residual().train()
    module.norm.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    nl.read(module, torch.zeros(1, 3, 16, 16))
    assert module.training
    assert module.stem.training
    assert not module.norm.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


@pytest.mark.parametrize("shape", [(2, 4, 3), (1, 2, 4, 3), (1, 2, 2, 4, 3)])
def test_fused_attention_counts_both_products_at_any_rank(shape: tuple[int, ...]) -> None:
    graph = nl.read(Attention(), torch.zeros(shape))
    assert graph.macs == 2 * torch.Size(shape[:-2]).numel() * 4 * 4 * 3


class TwoInputs(nn.Module):
    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return image * scale, image - scale


@pytest.mark.parametrize("kind", ["tuple", "names"])
def test_a_module_takes_any_number_of_inputs(kind: str) -> None:
    image, scale = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 1, 1)
    graph = nl.read(TwoInputs(), (image, scale) if kind == "tuple" else {"image": image, "scale": scale})
    assert graph.inputs == ((1, 8, 8, 3), (1, 1, 1, 3))
    assert len(graph.outputs) == 2


def test_an_exported_program_is_read_as_the_module_that_it_is_of() -> None:
    x = torch.zeros(1, 3, 16, 16)
    program = torch.export.export(Residual().eval(), (x,))
    assert nl.read(program).key == nl.read(Residual(), x).key


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_module_that_torch_cannot_export_is_refused_with_torchs_reason_in_one_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(FormatError, match=r"Undecided: torch cannot export it: .*data-dependent") as caught:
        nl.read(Undecided(), torch.zeros(1, 3))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_module_without_example_inputs_is_told_what_to_give() -> None:
    with pytest.raises(FormatError, match=r"example inputs: read\(module, torch.zeros"):
        nl.read(Residual())
    with pytest.raises(FormatError, match="only a torch module takes example inputs"):
        nl.read("mobilenet_v2", torch.zeros(1))


def test_without_the_exporters_package_the_pip_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.archspace.forms.torch_program.EXPORTER", "no_such_package")
    with pytest.raises(FormatError, match="pip install no_such_package"):
        nl.read(nn.Linear(3, 2), torch.zeros(1, 3))


def test_files_names_and_objects_give_their_graphs(tmp_path: Path) -> None:
    block = ConvBlock(3, 4, 8, 8)
    graph = block.graph()
    (tmp_path / "a.ONNX").write_bytes(write_onnx(graph))
    (tmp_path / "a.TFLite").write_bytes(write_tflite(graph))
    for given in (tmp_path / "a.ONNX", str(tmp_path / "a.TFLite"), block, graph, block.name):
        assert nl.read(given) == graph
    assert nl.read("mobilenet_v2").macs == nl.network("mobilenet_v2").graph().macs


def test_a_programs_file_is_refused_as_opening_it_may_run_code(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), path)
    with pytest.raises(FormatError, match=r"may run code .* read\(torch.export.load\("):
        nl.read(path)
    assert nl.read(torch.export.load(path)).macs == 6


# timm and torchvision are large: small packages of their names stand in, with the functions that are called of them.


class Tiny(nn.Sequential):
    pretrained_cfg = MappingProxyType({"input_size": (3, 12, 10)})

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def build(name: str, weights: str | None = "web", weights_backbone: str | None = "web") -> Tiny:
    assert weights is weights_backbone is None  # anything else would be downloaded
    return Tiny()


@pytest.fixture
def zoos(monkeypatch: pytest.MonkeyPatch) -> None:
    timm, models, torchvision = ModuleType("timm"), ModuleType("torchvision.models"), ModuleType("torchvision")
    timm.list_models = models.list_models = lambda: ["tiny", "large"]  # type: ignore[attr-defined]
    timm.create_model = lambda name, pretrained: Tiny()  # type: ignore[attr-defined]
    models.get_model = build  # type: ignore[attr-defined]
    models.get_model_builder = lambda name: build  # type: ignore[attr-defined]
    transforms = SimpleNamespace(keywords={"crop_size": 14})
    models.get_model_weights = lambda name: SimpleNamespace(DEFAULT=SimpleNamespace(transforms=transforms))  # type: ignore[attr-defined]
    for module in (timm, torchvision, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("netlathe.made_modules.find_spec", lambda name: name)
    # torch's exporter looks for the real package, whose ops it knows
    monkeypatch.setattr(torchvision, "__spec__", None)


@pytest.mark.parametrize(("name", "height", "width"), [("timm:tiny", 12, 10), ("torchvision:tiny", 14, 14)])
@pytest.mark.usefixtures("zoos")
def test_a_name_of_another_package_is_its_network_at_the_size_it_was_made_for(
    name: str, height: int, width: int
) -> None:
    state = torch.random.get_rng_state()
    graph = nl.read(name)
    assert graph.inputs == ((1, height, width, 3),)
    conv = Conv2d(4, (3, 3), padding=graph.nodes[0].op.padding, batch_norm=False)  # type: ignore[attr-defined]
    assert [node.op for node in graph.nodes] == [conv, GlobalAvgPool(), FullyConnected(2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert nl.read(name, shapes={"": (2, 3, 9, 9)}).inputs == ((2, 9, 9, 3),)


@pytest.mark.usefixtures("zoos")
def test_an_unknown_name_of_another_package_is_told_with_close_ones() -> None:
    with pytest.raises(SpaceError, match=r"timm has no network 'tyny' \(did you mean 'tiny'\?\)"):
        nl.read("timm:tyny")


def test_a_package_that_is_not_installed_is_told_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netlathe.made_modules.find_spec", lambda name: None)
    with pytest.raises(FormatError, match=r"timm:resnet18: timm is not installed: pip install timm"):
        nl.read("timm:resnet18")


def open_model(folder: Path) -> Path:
    """A file of two inputs of open sizes."""
    names = ("image", "scale")
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("n", 3, "height", "width")) for n in names]
    nodes = [helper.make_node("Mul", names, ["m"]), helper.make_node("Conv", ["m", "w"], ["y"])]
    weights = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w")
    body = helper.make_graph(nodes, "g", inputs, [helper.make_empty_tensor_value_info("y")], [weights])
    path = folder / "open.onnx"
    path.write_bytes(helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return path


def test_commands_ask_for_open_sizes_and_take_them(tmp_path: Path) -> None:
    path = open_model(tmp_path)
    asked = CliRunner().invoke(make_app(only="show"), ["show", str(path)])
    assert asked.exit_code == 1
    assert "--shape image=1x3x224x224 --shape scale=1x3x224x224" in " ".join(asked.output.split())
    given = ["--shape", "image=2x3x8x6", "--shape", "scale=2x3x1x1"]
    shown = CliRunner().invoke(make_app(only="show"), ["show", str(path), *given, "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout.splitlines()[-1])
    assert found["input_shape"] == [2, 8, 6, 3]
    assert found["macs"] == 2 * 8 * 6 * 3 * 4
    refused = CliRunner().invoke(make_app(only="show"), ["show", str(path), "--shape", "image=1xtwo"])
    assert refused.exit_code == 1
    assert "expected sizes such as 1x3x224x224" in " ".join(refused.output.split())
