"""Networks of timm and torchvision as .onnx files, with random weights: each as torch's own exporter writes it.

Nothing but the packages' code is needed (`pip install --no-deps --target SITE timm torchvision safetensors
huggingface_hub`, and `PYTHONPATH=SITE`). What was exported stays: the same call goes on where one ended.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import netlathe as nl
from benchmarks.any_model.reading import ABOUT
from netlathe.archspace.errors import NetlatheError
from netlathe.archspace.files import write_whole
from netlathe.cli.console import Terminal
from netlathe.made_modules import made_module

TIMM = (
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv4_conv_small", "mobileone_s0",
    "efficientnet_lite0", "efficientnet_b0", "tf_efficientnetv2_b0", "mnasnet_small", "semnasnet_100", "spnasnet_100",
    "fbnetc_100", "fbnetv3_b", "hardcorenas_a", "tinynet_e", "mixnet_s", "lcnet_050", "ghostnet_100",
    "ghostnetv2_100", "repghostnet_050", "rexnet_100", "regnetx_004", "regnety_004", "regnetz_b16", "nf_regnet_b0",
    "resnet18", "resnet26d", "seresnet18", "skresnet18", "resnext26ts", "resnest14d", "res2net50_26w_4s",
    "ecaresnet26t", "gcresnext26ts", "resnetv2_18", "resnetblur18", "legacy_seresnet18", "densenet121", "dla46_c",
    "dpn68", "xception41", "inception_v3", "cs3darknet_s", "darknet17", "ese_vovnet19b_dw", "selecsls42",
    "hrnet_w18_small", "hgnetv2_b0", "repvgg_a0", "repvit_m0_9", "fasternet_t0", "fastvit_t8", "starnet_s1",
    "convnext_atto", "convnextv2_atto", "edgenext_xx_small", "inception_next_atto", "mambaout_femto", "rdnet_tiny",
    "efficientformer_l1", "efficientformerv2_s0", "poolformer_s12", "poolformerv2_s12", "mobilevit_xxs",
    "mobilevitv2_050", "mobilenetv4_hybrid_medium", "efficientvit_b0", "efficientvit_m0", "levit_128s", "shvit_s1",
    "swiftformer_xs", "iformer_t", "lowformer_b0", "efficientvim_m1", "pvt_v2_b0", "visformer_tiny", "coat_lite_tiny",
    "vit_tiny_patch16_224", "deit_tiny_patch16_224", "cait_xxs24_224", "xcit_nano_12_p16_224", "pit_ti_224",
    "convit_tiny", "crossvit_9_240", "swin_tiny_patch4_window7_224", "focalnet_tiny_srf", "mvitv2_tiny",
    "mixer_s32_224", "resmlp_12_224", "gmlp_s16_224", "botnet26t_256", "halonet26t", "lambda_resnet26t",
    "nest_tiny", "twins_svt_small", "davit_tiny", "gcvit_xxtiny", "caformer_s18", "hiera_tiny_224", "sequencer2d_s",
    "volo_d1_224",
)  # fmt: skip
TORCHVISION = (
    "mobilenet_v2", "mobilenet_v3_large", "mnasnet0_5", "efficientnet_b0", "squeezenet1_1", "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0", "googlenet", "inception_v3", "densenet121", "resnet18", "resnext50_32x4d", "regnet_y_400mf",
    "alexnet", "convnext_tiny", "swin_t", "maxvit_t", "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large",
)  # fmt: skip


def export(folder: Path, terminal: Terminal, names: Sequence[str] = ()) -> None:
    """Writes what is not in the folder yet. Raises NetlatheError where a package is not installed."""
    for package in ("timm", "torchvision"):
        if find_spec(package) is None:
            raise NetlatheError(f"{package} is not installed: pip install --no-deps --target SITE {package}")
    _name_operators()
    folder.mkdir(parents=True, exist_ok=True)
    given = [*(f"timm:{name}" for name in TIMM), *(f"torchvision:{name}" for name in TORCHVISION)]
    for what in names or given:
        path = folder / f"{what.replace('torchvision:', 'tv:').replace(':', '_')}.onnx"
        if path.with_suffix(ABOUT).exists():
            continue
        start = time.perf_counter()
        about = _exported(what, path)
        write_whole(path.with_suffix(ABOUT), json.dumps(about, indent=1))
        terminal.say(f"{what}: {about.get('error') or about.get('module_error') or 'ok'}, "
                     f"{time.perf_counter() - start:.0f} s")  # fmt: skip


def _exported(what: str, path: Path) -> dict[str, Any]:
    """Facts of a network beside its file; `error` where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = made_module(what)
        module, x = found.module, found.inputs
        assert isinstance(module, nn.Module)
        assert isinstance(x, Tensor)
        module.eval()
        about: dict[str, Any] = {"name": what}
        try:
            about["macs"] = _macs(module, x)
            with torch.no_grad():
                program = torch.export.export(module, (x,))
        except Exception as error:  # whatever torch raises of a network is about that one
            return about | {"error": f"torch cannot run or export it: {error!s:.200}"}
        try:
            about["module_macs"] = nl.read(program).macs
        except NetlatheError as error:
            about["module_error"] = str(error)
        try:
            made = torch.onnx.export(program, dynamo=True, verbose=False)
            assert made is not None
            made.save(path, external_data=False)
        except Exception as error:  # likewise
            about["error"] = f"torch cannot export it: {error!s:.200}"
    return about


def _macs(module: nn.Module, x: Tensor) -> int:
    """MACs of convolutions and products of matrices, as torch's own counter has them, which knows attention on a CPU by
    its products alone."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(x)
    return int(counter.get_total_flops()) // 2


def _name_operators() -> None:
    """Names of torchvision's own operators, where its binary does not fit this torch: its package cannot be imported
    without them, and no classifier calls one."""
    spec = find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    found = re.findall(
        r'register_meta\("(\w+)"|register_fake\("torchvision::(\w+)"|torch\.ops\.torchvision\.(\w+)', text
    )
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in {name for names in found for name in names if name}:
        library.define(f"{name}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    globals()["_library"] = library  # it lives as long as this module
