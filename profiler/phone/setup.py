"""What a phone's times depend on."""

from __future__ import annotations

from netlathe.archspace.records import Setup
from netlathe.profiler.benchmark_tool import BenchmarkOptions
from netlathe.profiler.phone.delegation import Delegation
from netlathe.profiler.phone.description import PhoneDescription
from netlathe.profiler.phone.provision import Binary
from netlathe.profiler.phone.topology import core_summary


def describe_setup(
    phone: PhoneDescription,
    binary: Binary,
    options: BenchmarkOptions,
    mask: str,
    dtype: str,
    fixed_performance: str,
    unit: str,
    delegation: Delegation,
    libraries: str = "",
) -> Setup:
    """The setup under which that phone's records stand. `mask` is the core mask in hexadecimal, '' for none,
    `fixed_performance` held, refused or unavailable, `unit` a name for this very phone: two of one model differ,
    `libraries` a hash of those that an accelerator runs through."""
    details = {
        "abi": binary.abi,
        "android_build": phone.fingerprint,
        "benchmark_model": binary.kind,
        "benchmark_model_sha256": binary.sha256,
        "cores": core_summary(phone),
        "delegated": delegation.delegated,
        "fixed_performance": fixed_performance,
        "governor": " ".join(sorted(set(phone.governors))),
        "kernel": phone.kernel,
        "unit": unit,
    }
    if libraries:
        details["libraries"] = libraries
    if delegation.gpu_api:
        details["gpu_api"] = delegation.gpu_api
    return Setup(
        device=f"{phone.manufacturer} {phone.model}", processor=phone.soc, os=f"Android {phone.release}",
        runtime="tflite", runtime_version=binary.sha256[:12],
        delegate=delegation.delegate,
        threads=options.threads, core_mask=mask, dtype=dtype, details=tuple(details.items()),
    )  # fmt: skip
