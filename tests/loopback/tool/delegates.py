"""Who runs the ops: XNNPACK, which is real here, or a GPU or NNAPI delegate, which is the CPU under their names.

What the phone's GPU and NNAPI take is decided by the type of the op: a file of the phone's state lists what each
refuses. What they take runs on the CPU all the same, so their times are the CPU's.
"""

import dataclasses
import os
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from .flags import Parameters
from .output import Log, write

NODE_NAMES = {"XNNPACK": "TfLiteXNNPackDelegate", "GPU": "TfLiteGpuDelegateV2", "NNAPI": "TfLiteNnapiDelegate"}


class RunError(Exception):
    """The benchmark fails as the official tool fails; the message is its ERROR line, empty where it has none."""


@dataclasses.dataclass(frozen=True)
class Session:
    """A model ready to run.

    Attributes:
        kinds: builtin names of the ops in run order.
        taken: for each op, whether a delegate runs it.
        delegate: the delegate's name, None: ops run on their own.
        allocate_us: what the allocation of tensors took, delegates included.
    """

    interpreter: Interpreter
    kinds: Sequence[str]
    taken: Sequence[bool]
    delegate: str | None
    allocate_us: int = 0


def start(model: bytes, parameters: Parameters, state: Path, log: Log, faults: Collection[str] = ()) -> Session:
    """Builds the interpreter, applies delegates, and says so; `faults` are kinds. Raises RunError."""
    resolver = OpResolverType.AUTO
    if "no_xnnpack" in faults or ("use_xnnpack" in parameters.given and not parameters["use_xnnpack"]):
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    threads = int(parameters.number("num_threads"))
    try:
        interpreter = Interpreter(
            model_content=model, num_threads=threads if threads > 0 else None, experimental_op_resolver_type=resolver
        )
    except (ValueError, RuntimeError) as error:
        raise RunError(f"Failed to initialize the interpreter: {error}") from error
    _check_signature(interpreter, parameters.text("signature_to_run_for"))
    operations = [operation["op_name"] for operation in interpreter._get_ops_details()]
    asked = [name for name in ("GPU", "NNAPI") if parameters[f"use_{name.lower()}"]]
    # Without a delegate, only newer tools look at the demand for one; XNNPACK by default does not meet it.
    if parameters["require_full_delegation"] and not asked and not parameters["use_xnnpack"] and log.style.signature:
        raise RunError("Disallowed CPU fallback detected.")
    session = _foreign(asked, interpreter, operations, parameters, state, log, faults) if asked else None
    allocate_us = _allocate(interpreter, quiet=session is not None and all(session.taken))
    if session is not None:
        return dataclasses.replace(session, allocate_us=allocate_us)
    taken = _taken_by_xnnpack(interpreter)
    session = Session(interpreter, operations, taken, "XNNPACK" if any(taken) else None, allocate_us)
    if parameters["use_xnnpack"]:
        log.info("XNNPACK delegate created.")
        _judge("XNNPACK", taken, parameters, log)
    return session


def _check_signature(interpreter: Interpreter, wanted: str) -> None:
    known = list(interpreter.get_signature_list())
    if wanted and not known:
        raise RunError("Signature key is specified, but the model does not have any signatures.")
    if wanted not in ("", *known) or (not wanted and len(known) > 1):
        hint = 'Signature not specified or incorrect. Pass one of the following to the flag "--signature_to_run_for"'
        raise RunError("\n".join([hint, *(f" #> Signature key: {key}" for key in known)]))


def _foreign(
    asked: Sequence[str],
    interpreter: Interpreter,
    operations: Sequence[str],
    parameters: Parameters,
    state: Path,
    log: Log,
    faults: Collection[str],
) -> Session:
    for name in asked:
        log.runtime(f"Created TensorFlow Lite delegate for {name}.")
        log.info(f"{name} delegate created.")
    if len(asked) > 1:
        log.info(f"Going to apply {len(asked)} delegates one after another.")
    left = [True] * len(operations)
    for name in asked:
        refused = (state / f"{name.lower()}_refuses").read_text().split()
        _report_refused(name, sorted(set(refused) & set(operations)), operations)
        taken = [free and kind not in refused for free, kind in zip(left, operations, strict=True)]
        if name == "GPU" and any(taken):
            _initialize_gpu(log, faults)
            log.runtime(f"Created {_kernels(taken)} GPU delegate kernels.")
        _judge(name, taken, parameters, log)
        left = [free and not now for free, now in zip(left, taken, strict=True)]
    return Session(interpreter, operations, [not free for free in left], asked[0])


def _initialize_gpu(log: Log, faults: Collection[str]) -> None:
    if "no_opencl" in faults:
        reason = 'Can not open OpenCL library on this device - dlopen failed: library "libOpenCL.so" not found'
        write(2, f"ERROR: {reason}\nERROR: Falling back to OpenGL\n".encode())
    log.runtime(f"Initialized {'OpenGL' if 'no_opencl' in faults else 'OpenCL'}-based API.")


def _report_refused(name: str, refused: Sequence[str], operations: Sequence[str]) -> None:
    if refused:
        left = sum(kind in refused for kind in operations)
        lines = [f"ERROR: Following operations are not supported by {name} delegate:"]
        lines += [f"{kind}: Operation is not supported." for kind in refused]
        taken = f"{len(operations) - left} operations will run on the {name}"
        lines.append(f"{taken}, and the remaining {left} operations will run on the CPU.")
        write(2, "".join(f"{line}\n" for line in lines).encode())


def _kernels(taken: Sequence[bool]) -> int:
    """Uninterrupted stretches of ops that the delegate takes: each is one node of it."""
    return sum(here and not before for before, here in zip([False, *taken], taken, strict=False))


def _judge(name: str, taken: Sequence[bool], parameters: Parameters, log: Log) -> None:
    """Says how much of the model a delegate took. Raises RunError where it had to take all."""
    kernels = _kernels(taken)
    whole = all(taken) and kernels == 1
    if parameters["require_full_delegation"] and not whole:
        raise RunError("Disallowed CPU fallback detected.")
    applied = f"Explicitly applied {name} delegate, and the model graph will be"
    if whole:
        log.info(f"{applied} completely executed by the delegate.")
    elif kernels:
        log.info(f"{applied} partially executed by the delegate w/ {kernels} delegate kernels.")
    else:
        rest = "delegate is explicitly applied, the model graph will not be executed by the delegate."
        log.info(f"Though {name} {rest}")


def _allocate(interpreter: Interpreter, *, quiet: bool) -> int:
    saved = os.dup(2)
    if quiet:  # LiteRT announces XNNPACK, which on a phone would have nothing left to take
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    began_ns = time.perf_counter_ns()
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise RunError(f"Failed to allocate tensors! {error}") from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    return (time.perf_counter_ns() - began_ns) // 1000


def _taken_by_xnnpack(interpreter: Interpreter) -> list[bool]:
    """Which ops a delegate's node replaced: those that no output needs any more.

    LiteRT lists replaced ops along with the delegate's nodes; the nodes stand behind all of them.
    """
    details = interpreter._get_ops_details()
    own = [detail for detail in details if detail["op_name"] != "DELEGATE"]
    makers = {int(tensor): detail for detail in details for tensor in detail["outputs"]}
    needed = [int(output["index"]) for output in interpreter.get_output_details()]
    used: set[int] = set()
    while needed:
        maker = makers.get(needed.pop())
        if maker is not None and maker["index"] not in used:
            used.add(maker["index"])
            needed += [int(tensor) for tensor in maker["inputs"]]
    return [detail["index"] not in used for detail in own]
