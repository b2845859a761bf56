"""Diagnosis of a failed benchmark_model, and which of three errors that is.

DeviceError where no graph can be timed so; UnsupportedGraphError where this graph never will be; MeasurementError where
a later try may succeed. The texts are those of TensorFlow 2.3 to LiteRT 2026, Android's shell, toybox and bionic.
"""

from __future__ import annotations

import re
import signal

from netlathe.profiler.errors import DeviceError, MeasurementError, UnsupportedGraphError

DOWNLOADS = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
)
"""Folder of the official builds, of which only the latest is kept."""

_CANNOT_START = {
    # The first that fits counts: the later ones are words that the earlier messages hold, too.
    r"taskset: (?:inaccessible or )?not found|exec taskset: No such": "this phone has no taskset; leave --cores out",
    # A shell that cannot execute it may read it as a script, whose lines it then counts.
    r"not executable|Exec format error|[Ss]yntax error|benchmark_model(?:\[\d+\]|: \d+): ": (
        "it is built for another kind of processor or system"
    ),
    "only position independent executables": "it is built for Android 4 and older; build it as PIE (link it with -pie)",
    "CANNOT LINK EXECUTABLE": "a library that it needs is missing, or it is built for a newer Android",
    "failed to set .*affinity": "the core mask names no core that this phone lets it use",
    "Text file busy": "it is still being written; run the same command again",
    "Permission denied": (
        "nothing may be executed in /data/local/tmp, as it is mounted noexec or the phone's policy forbids it "
        "(`adb shell mount` tells which); take another phone, or have that lifted"
    ),
    "No such file|not found": "it is not there, or needs a dynamic linker that is not there (a build for Linux)",
}

_REFUSALS = re.compile(
    r".*(?:Disallowed CPU fallback detected"
    r"|Some ops are not accelerated"
    r"|Failed to apply \w+ delegate"
    r"|Didn't find op for builtin opcode"
    r"|Op builtin_code out of range"
    r"|Encountered unresolved custom op"
    r"|Select TensorFlow op\(s\)"
    r"|failed to prepare"
    r"|schema version \d+ not equal to supported version).*"
)
"""Reasons against the graph itself, which no later run changes."""

_EXITS = {
    1: "it gave up",
    124: "it took longer than it may and was stopped",
    126: "it cannot be executed",
    127: "it was not found",
    132: "illegal instruction: it is built for a newer processor",
    134: "it aborted",
    137: "it was killed; the phone may be short of memory",
    139: "it crashed (segmentation fault)",
}


def raise_failure(output: str, code: int, delegate: str | None, *, is_litert: bool = False) -> None:
    """Raises what `output` and the exit code tell of a failure; returns if they tell of none.

    `delegate` is the one that was asked for besides the CPU ("GPU", "NNAPI", "NPU"); `is_litert`: of LiteRT's newer
    tool. What no graph can cure comes first.
    """
    _raise_for_phone(output, code)
    _raise_for_tool(output, delegate, is_litert=is_litert)
    if code == 0:
        return
    refusal = _REFUSALS.search(output)
    # Killed for another reason, it may have refused only because of that.
    if refusal and code in (1, 134):
        raise UnsupportedGraphError(f"benchmark_model refuses the graph: {shown(refusal[0])}\n{tail(output)}")
    raise MeasurementError(f"benchmark_model failed: {_meaning(code)}\n{tail(output)}")


def tail(output: str, lines: int = 12) -> str:
    """The last lines, fit for a message."""
    kept = [line for line in output.split("\n") if line.strip()][-lines:]
    return "\n".join(f"  | {shown(line)}" for line in kept) or "  (no output)"


def shown(line: str, width: int = 200) -> str:
    """One line, not too long, with control characters made visible."""
    line = line.replace("\t", " ").strip()
    line = line if len(line) <= width else line[:width] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _raise_for_phone(output: str, code: int) -> None:
    """The shell or the linker could not start it. Delegates print similar words later, without harm."""
    if code == 0 or "STARTING!" in output:
        return
    for pattern, reason in _CANNOT_START.items():
        if re.search(pattern, output):
            raise DeviceError(f"benchmark_model cannot run on this phone: {reason}\n{tail(output)}")
    if code in (126, 127):
        raise DeviceError(f"benchmark_model cannot run on this phone: {_meaning(code)}\n{tail(output)}")


def _raise_for_tool(output: str, delegate: str | None, *, is_litert: bool) -> None:
    """Another tool, another version or another build than the one that can do what is asked."""
    if "BENCHMARK RESULTS" in output and not is_litert:
        raise DeviceError(
            "this benchmark_model is LiteRT's CompiledModel tool, which has the same name but other options and "
            f"output; pass the program itself with --benchmark-binary, or take the one for TFLite from {DOWNLOADS}"
        )
    unknown = re.search(r"Unconsumed cmdline flags:(.*)", output)
    if unknown:
        raise DeviceError(
            f"this benchmark_model does not know {shown(unknown[1])}, so it would measure "
            f"something else: it is too old, built without that part, or another tool; take the one from {DOWNLOADS}"
        )
    misread = re.search(r"Failed to parse flag.*", output)
    if misread:
        raise DeviceError(f"benchmark_model does not understand its command line: {shown(misread[0])}")
    missing = re.search(
        r"No (?:usable )?[Dd]ispatch (?:library|runtime) found.*|Failed to initialize Dispatch API.*", output
    )
    if delegate == "NPU" and missing:
        raise DeviceError(
            f"the NPU cannot be used on this phone: {shown(missing[0])}; put the libraries of its maker "
            f"(libLiteRtDispatch_*.so, and what they need) beside the file of --benchmark-binary\n{tail(output)}"
        )
    if delegate and f"{delegate} acceleration is unsupported on this platform" in output:
        raise DeviceError(f"this benchmark_model cannot use {delegate} on this phone\n{tail(output)}")


def _meaning(code: int) -> str:
    known = _EXITS.get(code)
    if known is None and 128 < code < 128 + signal.NSIG:
        known = f"signal {code - 128}"
    return f"{known} (exit code {code})" if known else f"exit code {code}"
