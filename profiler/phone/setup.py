"""Setup of a phone: what its times depend on."""

from __future__ import annotations

from netlathe.archspace.records import Setup
from netlathe.profiler.benchmark_tool import BenchmarkOptions
from netlathe.profiler.device import SUSTAINED
from netlathe.profiler.phone.delegation import Delegation
from netlathe.profiler.phone.prepared import PreparedPhone
from netlathe.profiler.phone.topology import core_summary


def describe_setup(
    phone: PreparedPhone, options: BenchmarkOptions, dtype: str, delegation: Delegation, libraries: str = ""
) -> Setup:
    """Setup under which the phone's records stand. It names this very phone: two of one model differ; `libraries` is a
    hash of those that an accelerator runs through."""
    binary, about = phone.binary, phone.description
    details = {
        "abi": binary.abi,
        "android_build": about.fingerprint,
        "benchmark_model": binary.kind,
        "benchmark_model_sha256": binary.sha256,
        "cores": core_summary(about),
        "delegated": delegation.delegated,
        "fixed_performance": phone.performance_mode,
        "governor": " ".join(sorted(set(about.governors))),
        "kernel": about.kernel,
        "unit": phone.link.unit,
    }
    details |= dict([SUSTAINED] if phone.is_sustained else ())
    if libraries:
        details["libraries"] = libraries
    if delegation.gpu_api:
        details["gpu_api"] = delegation.gpu_api
    return Setup(
        device=f"{about.manufacturer} {about.model}", processor=about.soc, os=f"Android {about.release}",
        runtime="tflite", runtime_version=binary.sha256[:12],
        delegate=delegation.delegate,
        threads=options.threads, core_mask=phone.mask, dtype=dtype, details=tuple(details.items()),
    )  # fmt: skip
