"""Products of matrices and tensors: bilinear in two arguments, both of which may depend on the input."""

from typing import Any

import torch
from torch import Tensor

from pullgeo.jacobian.kinds.graph import Bilinear
from pullgeo.jacobian.kinds.linear_map import LinearMap
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.ops.alignment import aligned, summed_to
from pullgeo.jacobian.tracing.ops.reshaping import reordered
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain
from pullgeo.jacobian.tracing.tape import Argument, Tape


@operation("matmul", "__matmul__", "bmm", "mm", "mv")
def matmul(tape: Tape, input: Tensor, other: Tensor) -> Any:
    """``input @ other`` in each sample."""
    if other.ndim == 1:
        return (input @ other.unsqueeze(-1)).squeeze(-1)
    if input.ndim == 1:
        return (input.unsqueeze(0) @ other).squeeze(-2)
    if _per_sample(other) and other.ndim == 2:
        raise Untraceable("multiplies by the matrix that the batch itself makes")
    if _per_sample(input) and input.ndim == 2:
        if other.ndim != 2:
            raise Untraceable("multiplies the matrix that the batch itself makes")
        return (input.unsqueeze(1) @ other).squeeze(1)
    return _matmul(tape, input, other)


@operation("__rmatmul__")
def rmatmul(tape: Tape, input: Tensor, other: Tensor) -> Any:
    """``other @ input``."""
    return matmul(tape, other, input)


@operation("addmm", "baddbmm")
def addmm(tape: Tape, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """``beta input + alpha mat1 @ mat2``."""
    return beta * input + alpha * (mat1 @ mat2)


@operation("F.bilinear")
def bilinear(tape: Tape, input1: Tensor, input2: Tensor, weight: Tensor, bias: Any = None) -> Any:
    """``y_o = Σ_ij x_i A_oij z_j + c_o``."""
    pairs = (input1.unsqueeze(-1) * input2.unsqueeze(-2)).flatten(-2)
    y = pairs @ weight.flatten(1).mT
    return y if bias is None else y + bias


def _matmul(tape: Tape, input: Tensor, other: Tensor) -> Recorded:
    a, b = plain(input), plain(other)
    value = a @ b
    arguments: list[Argument] = []
    if isinstance(input, Recorded):
        left = aligned(input, value)
        signature = tape.signature(input, value)
        arguments.append((input, _multiplied(signature, left, lambda T, m: T @ m, lambda W, m: W @ m.mT, b)))
    if isinstance(other, Recorded):
        right = aligned(other, value)
        signature = tape.signature(other, value)
        arguments.append((other, _multiplied(signature, right, lambda T, m: m @ T, lambda W, m: m.mT @ W, a)))
    if not (isinstance(input, Recorded) and isinstance(other, Recorded)):
        return tape.emit(value, arguments)
    shape = tape.signature(input, value).in_shape
    product = Bilinear(
        product=lambda T, S: T.reshape(*T.shape[:2], *left) @ S.reshape(*S.shape[:2], *right),
        pull_left=lambda w, S: summed_to(w @ S.reshape(*S.shape[:2], *right).mT, left).reshape(*S.shape[:2], *shape),
    )
    return tape.emit(value, arguments, product)


def _multiplied(signature: Any, sample: tuple[int, ...], there: Any, back: Any, matrix: Tensor) -> LinearMap:
    """Multiplication by a matrix from one side, of tangents that broadcast against it."""

    def forward(matrix: Tensor) -> Any:
        return lambda T: there(T.reshape(*T.shape[:2], *sample), matrix)

    def backward(matrix: Tensor) -> Any:
        return lambda W: summed_to(back(W, matrix), sample).reshape(*W.shape[:2], *signature.in_shape)

    squared = matrix * matrix
    return LinearMap(signature, forward(matrix), backward(matrix), forward(squared), backward(squared))


def _per_sample(tensor: Tensor) -> bool:
    return isinstance(tensor, Recorded) and tensor.state.per_sample


@operation("einsum")
def einsum(tape: Tape, equation: str, *operands: Any) -> Any:
    """Products and sums of one or two tensors."""
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], tuple | list) else list(operands)
    inputs, _, out = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if "." in equation or len(letters) != len(tensors):
        raise Untraceable(f"einsum {equation} is not one of one or two tensors with an explicit result")
    letters, tensors = map(list, zip(*map(_batch_in_front, letters, tensors), strict=True))
    sample = next((own[0] for own, tensor in zip(letters, tensors, strict=True) if _per_sample(tensor) and own), "")
    if sample and sample in out[1:]:
        front = sample + out.replace(sample, "")
        result: Any = torch.einsum(f"{','.join(letters)}->{front}", *tensors)
        return reordered(tape, result, [front.index(letter) for letter in out])
    _check_equation(equation, letters, out, tensors)
    values = plain(tensors)
    value = torch.einsum(f"{','.join(letters)}->{out}", *values)
    arguments: list[Argument] = []
    for i, tensor in enumerate(tensors):
        if isinstance(tensor, Recorded):
            arguments.append((tensor, _factor(tape, tensor, value, letters, out, values, i)))
    if len(arguments) < 2:
        return tape.emit(value, arguments)
    left, right = (_stacked(letters[i], tensors[i], out) for i in (0, 1))
    product = Bilinear(
        product=lambda T, S: torch.einsum(f"{left},{right}->Z{out}", T, S),
        pull_left=lambda w, S: torch.einsum(f"{out},{right}->{left}", w, S),
    )
    return tape.emit(value, arguments, product)


def _batch_in_front(letters: str, tensor: Any) -> tuple[str, Any]:
    """An operand of an einsum, or what it comes from where its batch is not in front, with the letters in its order."""
    if not isinstance(tensor, Recorded) or tensor.state.origin is None:
        return letters, tensor
    own = dict(zip(tensor.state.origin.order, letters, strict=True))
    return "".join(own[i] for i in range(len(own))), tensor.state.origin.base


def _check_equation(equation: str, letters: list[str], out: str, tensors: list[Any]) -> None:
    if "." in equation or "Z" in equation or "->" not in equation or not out or len(tensors) > 2:
        raise Untraceable(f"einsum {equation} is not one of one or two tensors with an explicit result")
    for i, (own, tensor) in enumerate(zip(letters, tensors, strict=True)):
        others = set(out).union(*letters[:i], *letters[i + 1 :])
        if len(set(own)) < len(own) or not set(own) <= others:
            raise Untraceable(f"einsum {equation} takes a diagonal or sums one tensor alone")
        if _per_sample(tensor) and own[0] != out[0]:
            raise Untraceable(f"einsum {equation} does not have the batch as the first letter")
        if not _per_sample(tensor) and isinstance(tensor, Recorded) and out[0] in own:
            raise Untraceable(f"einsum {equation} lets a parameter run along the batch")
        if not _per_sample(tensor) and out[0] in own[1:]:
            raise Untraceable(f"einsum {equation} does not have the batch as the first letter")


def _stacked(own: str, tensor: Tensor, out: str) -> str:
    """The letters of a stack of tangents of an operand; those of a parameter differ by sample."""
    return f"Z{own}" if _per_sample(tensor) else f"Z{out[0]}{own}"


def _factor(
    tape: Tape, tensor: Recorded, value: Tensor, letters: list[str], out: str, values: list[Tensor], i: int
) -> LinearMap:
    """The derivative of an einsum with respect to one operand."""
    stack = _stacked(letters[i], tensor, out)
    others = [(letters[j], v) for j, v in enumerate(values) if j != i]

    def there(square: bool) -> Any:
        fixed = [v * v if square else v for _, v in others]
        return lambda T: torch.einsum(",".join([stack, *(o for o, _ in others)]) + f"->Z{out}", T, *fixed)

    def back(square: bool) -> Any:
        fixed = [v * v if square else v for _, v in others]
        return lambda W: torch.einsum(",".join([f"Z{out}", *(o for o, _ in others)]) + f"->{stack}", W, *fixed)

    return LinearMap(tape.signature(tensor, value), there(False), back(False), there(True), back(True))
