"""Random inputs, in the ranges that benchmark_model takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

INTEGER_RANGES = {"int8": (-127, 127), "uint8": (0, 254), "int16": (-32767, 32767), "int32": (0, 99), "int64": (0, 99)}


def random_inputs(interpreter: Interpreter, generator: np.random.Generator) -> Iterator[tuple[int, NDArray[Any]]]:
    """Tensor number and values of each input: uniform from -0.5 to 0.5, or whole numbers over the type's range."""
    for detail in interpreter.get_input_details():
        dtype = np.dtype(detail["dtype"])
        if dtype.name in INTEGER_RANGES:
            low, high = INTEGER_RANGES[dtype.name]
            values = generator.integers(low, high, size=detail["shape"], dtype=dtype, endpoint=True)
        else:
            values = generator.uniform(-0.5, 0.5, size=detail["shape"]).astype(dtype)
        yield int(detail["index"]), values
