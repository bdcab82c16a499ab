"""Operations that choose, repeat or put together elements."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pullgeo._torch.torch_names import functions_named
from pullgeo.jacobian.kinds.linear_map import LinearMap, Placed
from pullgeo.jacobian.tracing.operations import operation
from pullgeo.jacobian.tracing.ops.alignment import aligned, scaled
from pullgeo.jacobian.tracing.ops.reshaping import dimension, selected
from pullgeo.jacobian.tracing.proxy import Recorded, Untraceable, plain, recorded_in
from pullgeo.jacobian.tracing.tape import Argument, Tape


@operation("__getitem__")
def getitem(tape: Tape, input: Recorded, index: Any) -> Any:
    """``input[index]``, where the index takes the whole batch as it is."""
    entries = index if isinstance(index, tuple) else (index,)
    if recorded_in(entries) or not _keeps_batch(entries, input):
        raise Untraceable("an index chooses among the samples")
    if entries and isinstance(entries[0], slice):
        entries = (slice(None), *entries[1:])  # stacks have more rows than this batch
    return selected(tape, input, lambda t: t[entries], view=not any(map(_is_advanced, entries)))


def _is_advanced(entry: Any) -> bool:
    return not (entry is None or entry is Ellipsis or isinstance(entry, slice | int))


def _keeps_batch(entries: tuple[Any, ...], input: Recorded) -> bool:
    """Whether the first dimension is taken whole and stays in front."""
    taken = [entry for entry in entries if entry is not None and entry is not Ellipsis]
    dims = sum(e.ndim if isinstance(e, Tensor) and e.dtype == torch.bool else 1 for e in taken)
    if any(isinstance(entry, bool) for entry in taken):
        return False
    if entries and entries[0] is not Ellipsis:
        samples = range(input.shape[0])
        if not (isinstance(entries[0], slice) and range(*entries[0].indices(len(samples))) == samples):
            return False
    elif dims >= input.ndim:
        return False
    chosen = [i for i, entry in enumerate(entries) if _is_advanced(entry) or isinstance(entry, int)]
    together = not chosen or chosen[-1] - chosen[0] == len(chosen) - 1
    # torch puts the dimension of index tensors that stand apart from each other in front of all others
    return together or not any(map(_is_advanced, entries))


def narrowed(tape: Tape, input: Recorded, dim: int, start: int, length: int) -> Recorded:
    """Record the choice of a range along one dimension."""
    position = dimension(input, dim)
    value = plain(input).narrow(position, start, length)
    after = input.shape[position] - start - length
    J = LinearMap(
        tape.signature(input, value),
        forward=lambda T: T.narrow(position + 1, start, length),
        backward=lambda W: _padded(W, position + 1, start, after),
        forward_squared=lambda v: v.narrow(position + 1, start, length),
        backward_squared=lambda w: _padded(w, position + 1, start, after),
    )
    return tape.emit(value, [(input, J)], view_of=input)


def _padded(T: Tensor, dim: int, before: int, after: int) -> Tensor:
    return F.pad(T, [0, 0] * (T.ndim - 1 - dim) + [before, after])


@operation("narrow")
def narrow(tape: Tape, input: Recorded, dim: int, start: int, length: int) -> Recorded:
    """A range along one dimension."""
    return narrowed(tape, input, dim, int(start), length)


@operation("chunk")
def chunk(tape: Tape, input: Recorded, chunks: int, dim: int = 0) -> Any:
    """Pieces along a dimension, so many."""
    return _pieces(tape, input, torch.chunk(plain(input), chunks, dimension(input, dim)), dim)


@operation("split")
def split(
    tape: Tape, input: Recorded, split_size: Any = None, dim: int = 0, *, split_size_or_sections: Any = None
) -> Any:
    """Pieces along a dimension, of given sizes."""
    sizes = split_size if split_size_or_sections is None else split_size_or_sections
    return _pieces(tape, input, torch.split(plain(input), sizes, dimension(input, dim)), dim)


@operation("tensor_split")
def tensor_split(tape: Tape, input: Recorded, indices_or_sections: Any, dim: int = 0) -> Any:
    """Pieces along a dimension, cut at given places."""
    return _pieces(tape, input, torch.tensor_split(plain(input), indices_or_sections, dimension(input, dim)), dim)


def _pieces(tape: Tape, input: Recorded, pieces: Sequence[Tensor], dim: int) -> Any:
    position = dimension(input, dim)
    lengths = [piece.shape[position] for piece in pieces]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple(narrowed(tape, input, position, s, n) for s, n in zip(starts, lengths, strict=True))


@operation("unbind")
def unbind(tape: Tape, input: Recorded, dim: int = 0) -> Any:
    """All slices along a dimension."""
    return tuple(input.select(dimension(input, dim), i) for i in range(input.shape[dim]))


def _register_selection(name: str, view: bool) -> None:
    """A function ``(input, dim, ...)`` that chooses elements along a dimension."""
    method = functions_named(name)[0]

    @operation(name)
    def record(tape: Tape, input: Recorded, dim: int, *args: Any, **kwargs: Any) -> Any:
        position = dimension(input, dim)
        return selected(tape, input, lambda t: method(t, position, *args, **kwargs), view=view)


_register_selection("select", view=True)
_register_selection("index_select", view=False)


@operation("Tensor.unfold")
def unfold(tape: Tape, input: Recorded, dimension_: int, size: int, step: int) -> Any:
    """Windows along a dimension."""
    position = dimension(input, dimension_)
    return selected(tape, input, lambda t: t.unfold(position, size, step))


@operation("flip")
def flip(tape: Tape, input: Recorded, *dims: Any) -> Any:
    """The order along dimensions reversed."""
    positions = [dimension(input, dim) for dim in _numbers(dims)]
    return selected(tape, input, lambda t: t.flip(positions), view=False)


@operation("roll")
def roll(tape: Tape, input: Recorded, shifts: Any, dims: Any = None) -> Any:
    """Elements shifted along dimensions."""
    if dims is None or dims == ():
        raise Untraceable("roll without dims moves elements from sample to sample")
    positions = [dimension(input, dim) for dim in _numbers((dims,))]
    return selected(tape, input, lambda t: t.roll(_numbers((shifts,)), positions), view=False)


@operation("diagonal")
def diagonal(tape: Tape, input: Recorded, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """Diagonals of matrices in a sample."""
    first, second = dimension(input, dim1), dimension(input, dim2)
    return selected(tape, input, lambda t: t.diagonal(offset, first, second))


@operation("tril")
def tril(tape: Tape, input: Recorded, diagonal: int = 0) -> Any:
    """Lower triangles."""
    return _triangle(tape, input, lambda t: t.tril(diagonal))


@operation("triu")
def triu(tape: Tape, input: Recorded, diagonal: int = 0) -> Any:
    """Upper triangles."""
    return _triangle(tape, input, lambda t: t.triu(diagonal))


def _triangle(tape: Tape, input: Recorded, select: Callable[[Tensor], Tensor]) -> Any:
    if input.ndim < 3:
        raise Untraceable("a triangle of the matrix that the batch itself makes")
    return selected(tape, input, select, view=False)


@operation("gather")
def gather(tape: Tape, input: Recorded, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Any:
    """Elements at an index for every sample."""
    position = dimension(input, dim)
    if isinstance(index, Recorded):
        raise Untraceable("gathers at recorded integers")
    value = plain(input).gather(position, index)

    def forward(T: Tensor) -> Tensor:
        return T.gather(position + 1, index.expand(len(T), *index.shape))

    def backward(W: Tensor) -> Tensor:
        zeros = W.new_zeros(len(W), *input.shape)
        return zeros.scatter_add(position + 1, index.expand(len(W), *index.shape), W)

    return tape.emit(value, [(input, LinearMap(tape.signature(input, value), forward, backward, forward, backward))])


@operation("repeat_interleave")
def repeat_interleave(tape: Tape, input: Recorded, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Any:
    """Every slice along a dimension repeated."""
    if dim is None:
        raise Untraceable("repeat_interleave without dim glues samples")
    position = dimension(input, dim)
    return selected(tape, input, lambda t: t.repeat_interleave(repeats, position), view=False)


@operation("repeat", "tile")
def repeat(tape: Tape, input: Recorded, *sizes: Any, dims: Any = None) -> Any:
    """Samples repeated along their own dimensions."""
    counts = _numbers(sizes if dims is None else (dims,))
    if len(counts) > input.ndim or (len(counts) == input.ndim and counts[0] != 1):
        raise Untraceable("repeats the batch")
    return selected(tape, input, lambda t: t.tile(counts), view=False)


@operation("expand", "broadcast_to")
def expand(tape: Tape, input: Recorded, *sizes: Any, size: Any = None) -> Any:
    """Samples repeated along dimensions of size one."""
    value = plain(input).expand(_numbers(sizes if size is None else (size,)))
    return tape.emit(value, [(input, scaled(tape, input, value))], view_of=input)


@operation("expand_as")
def expand_as(tape: Tape, input: Tensor, other: Tensor) -> Any:
    """As `expand`, to the shape of another tensor."""
    return input.expand(other.shape)


@operation("cat", "concat", "concatenate")
def cat(tape: Tape, tensors: Any, dim: int = 0) -> Any:
    """Tensors one behind the other along a dimension of the samples."""
    values = plain(list(tensors))
    value = torch.cat(values, dim)
    position = dimension(value, dim)
    edges: list[Argument] = []
    start = 0
    for tensor, piece in zip(tensors, values, strict=True):
        length = piece.shape[position]
        if isinstance(tensor, Recorded):
            edges.append((tensor, Placed(tape.signature(tensor, value), aligned(tensor, value), position - 1, start)))
        start += length
    return tape.emit(value, edges)


@operation("stack")
def stack(tape: Tape, tensors: Any, dim: int = 0) -> Any:
    """Tensors one behind the other along a new dimension of the samples."""
    ndim = tensors[0].ndim + 1
    if dim % ndim == 0:
        raise Untraceable("stacks along a dimension in front of the batch")
    return torch.cat([tensor.unsqueeze(dim % ndim) for tensor in tensors], dim % ndim)


@operation("F.pad")
def pad(tape: Tape, input: Recorded, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """Samples enlarged at their ends."""
    if len(pad) // 2 >= input.ndim:
        raise Untraceable("pads the batch")
    if mode != "constant":
        return selected(tape, input, lambda t: F.pad(t, pad, mode), view=False)
    padded = F.pad(plain(input), pad, mode, value)
    return selected(tape, input, lambda t: F.pad(t, pad), view=False, value=padded)


def _numbers(arguments: Sequence[Any]) -> list[int]:
    """Numbers given one by one or as one sequence."""
    if len(arguments) == 1 and isinstance(arguments[0], tuple | list):
        return list(arguments[0])
    return list(arguments)
