"""Where a network is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from netlathe.archspace.blocks import MBConv
from netlathe.archspace.forms.torch import TorchGraph
from netlathe.training.compute import Compute
from netlathe.training.errors import TrainingError


def test_auto_takes_the_gpu_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert Compute().torch_device.type == expected


def test_auto_precision_is_bfloat16_only_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, has_it, expected in (
        (True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it: has_it)
        assert Compute().dtype is expected
    assert Compute("cpu", "bfloat16").dtype is torch.bfloat16


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_refused_at_once(name: str) -> None:
    with pytest.raises(TrainingError, match=r"use cpu"):
        Compute(name)


@pytest.mark.parametrize("wrong", [{"precision": "float16"}, {"workers": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="use"):
        Compute("cpu", **wrong)


def test_autocast_computes_convolutions_in_the_precision_and_leaves_weights_alone() -> None:
    conv = nn.Conv2d(3, 4, 3)
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with Compute("cpu", precision).autocast():  # type: ignore[arg-type]
            assert conv(torch.zeros(1, 3, 8, 8)).dtype is dtype
    assert conv.weight.dtype is torch.float32


def test_modules_and_batches_are_channels_last() -> None:
    compute = Compute("cpu")
    conv = compute.place(nn.Conv2d(3, 4, 3))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    x, labels = compute.put(torch.zeros(2, 3, 8, 8), torch.tensor([1, 2]))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [1, 2]


def test_compiling_is_asked_for_and_keeps_the_names_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: compiled.append(self))
    conv = nn.Conv2d(3, 4, 3)
    assert Compute("cpu").maybe_compile(conv) is conv
    assert compiled == []
    assert Compute("cpu", compile=True).maybe_compile(conv) is conv
    assert compiled == [conv]
    assert list(conv.state_dict()) == ["weight", "bias"]


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_each_of_many_candidates_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share one forward's code, of which torch compiles 8 variants at most unless told otherwise."""
    graphs: list[int] = []

    def backend(module: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(id(module))
        return module.forward

    compile_in_place = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: compile_in_place(self, backend=backend, **options)
    )
    blocks = [MBConv(4, 4, 4, 4, kernel=k, expand=e) for k in (3, 5, 7) for e in (1, 2, 3)]
    for block in blocks:
        Compute("cpu", compile=True).maybe_compile(TorchGraph(block.graph()))(torch.zeros(2, 4, 4, 4))
    assert len(graphs) == len(blocks)


def test_channels_lie_last_unless_asked_otherwise() -> None:
    x, labels = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last), torch.tensor([0, 1])
    for last, wanted in ((True, torch.channels_last), (False, torch.contiguous_format)):
        compute = Compute("cpu", channels_last=last)
        found, _ = compute.put(x, labels)
        assert found.is_contiguous(memory_format=wanted)
        assert compute.place(nn.Conv2d(3, 8, 3)).weight.is_contiguous(memory_format=wanted)
