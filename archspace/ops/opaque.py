"""Foreign ops that netlathe does not have, so that the rest of their model can be told nonetheless."""

from __future__ import annotations

from dataclasses import dataclass, field

from netlathe.archspace.errors import GraphError
from netlathe.archspace.ops.base import LATER, DType, Op, Shape, check_shape, is_integer, register, told

_LONGEST = 200


@register
@dataclass(frozen=True, slots=True)
class Opaque(Op):
    """A foreign op by its name, with the shapes of its results (batch included), their dtypes (float32 by default) and
    the bytes of weights that it reads, as the file tells them.

    It counts bytes and no MACs. It can be neither run nor written, and is priced only where the user asks for it.
    """

    kind = "opaque"
    arity = None
    has_dtype = True
    operation: str
    shapes: tuple[Shape, ...]
    dtypes: tuple[DType, ...] = field(default=(), metadata=LATER)
    weight_bytes: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        given = told(self.operation)
        if not isinstance(self.operation, str) or not 1 <= len(self.operation) <= _LONGEST:
            raise GraphError(f"opaque: operation must be a name of up to {_LONGEST} characters, got {given}")
        if not isinstance(self.shapes, tuple) or not self.shapes:
            raise GraphError(f"opaque {given}: shapes must name at least one result, got {told(self.shapes)}")
        for shape in self.shapes:
            check_shape(shape, f"opaque {given}: a result's shape")
        known = tuple(DType)
        if not isinstance(self.dtypes, tuple) or not all(dtype in known for dtype in self.dtypes):
            raise GraphError(f"opaque {given}: dtypes must be of {', '.join(known)}, got {told(self.dtypes)}")
        if len(self.dtypes) not in (0, len(self.shapes)):
            raise GraphError(f"opaque {given}: {len(self.dtypes)} dtypes for {len(self.shapes)} results")
        if not is_integer(self.weight_bytes, 0):
            raise GraphError(f"opaque {given}: weight_bytes must be 0 or more, got {told(self.weight_bytes)}")
        object.__setattr__(self, "dtypes", tuple(map(DType, self.dtypes)))

    @property
    def name(self) -> str:
        return self.operation

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shapes[0]

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return self.shapes

    def output_dtypes(self, inputs: tuple[DType, ...], results: int) -> tuple[DType, ...]:
        return self.dtypes or (DType.FLOAT32,) * results

    def stored_values(self, *inputs: Shape) -> int:
        return self.weight_bytes // 4

    def stored_bytes(self, itemsize: int, *inputs: Shape) -> int:
        return self.weight_bytes
