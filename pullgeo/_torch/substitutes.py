"""Functions whose derivatives torch lacks or gets wrong, in operations that it differentiates right.

While a map is differentiated automatically, `Substituting` puts these formulas in place of torch's functions:

* determinants, linear systems, reflections, weight and layer norm, products and logarithms of sums along a dimension:
  some derivative of a derivative is wrong, or NaN; see `pullgeo._torch.matrix_functions`;
* singular values, and norms by them: second derivatives are NaN where values are equal or zero, as of eigenvalues; see
  `pullgeo._torch.singular_values`;
* eigenvectors, singular vectors: functions of a matrix that are built of them have derivatives where values are equal,
  which torch has as NaN; see `pullgeo._torch.equal_values`;
* norms, angles, extremes: forward mode disagrees with reverse mode at kinks and ties, or second derivatives are NaN
  there; see `pullgeo._torch.kink_functions`;
* bags of embeddings, hard sigmoid, gated linear units, distances of all pairs: some derivative is missing; that of the
  hard sigmoid, as that of CELU, is rounded to single precision;
* margin losses, connectionist temporal classification, reductions of segments, batch norm by the batch's statistics:
  torch has no derivative of some derivative, or a wrong one; see `pullgeo._torch.once_functions`;
* tables of embeddings: their sparse gradients cannot be reshaped;
* the chunked cross entropy of a linear layer: it has first derivatives alone, of reverse mode;
* unpooling: where windows overlap, reverse mode counts what they share twice;
* bilinear forms, Mish: tangents would be moved one by one;
* recurrent layers: the kernels of libraries keep what a backward pass needs only while gradients are on (oneDNN) or in
  train mode (cuDNN), have no second derivative, and move tangents one by one; torch's own do without all that.

``tests/fuzz/sweep_operations.py`` finds them, by trying all operations of torch.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import _VF, Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from pullgeo._torch import kink_functions, matrix_functions, once_functions, own_functions, singular_values
from pullgeo._torch.scripts import ScriptCalls
from pullgeo._torch.torch_names import Function, functions_named
from pullgeo._torch.without_derivative import WITHOUT_DERIVATIVE, check_has_derivative


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """``g v/‖v‖`` with the norm over all dimensions but one, or over all of them for -1."""
    others = [d for d in range(v.ndim) if dim == -1 or d != dim % v.ndim]
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=dim != -1))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``x/6 + 1/2`` clipped to [0, 1]."""
    y = (input / 6 + 0.5).clamp(0, 1)
    return input.copy_(y) if inplace else y


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x tanh(softplus(x))``."""
    y = input * torch.tanh(F.softplus(input))
    return input.copy_(y) if inplace else y


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a σ(g)`` of the halves ``a, g`` along a dimension."""
    a, g = input.chunk(2, dim)
    return a * torch.sigmoid(g)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``xᵀ A_o z + c_o``."""
    y = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: Any = 2.0,  # torch passes an integer by default
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, average or maximum of the rows ``A_x(s)`` of a bag; extremes of bags that offsets mark stay torch's own."""
    if input.ndim == 1 and offsets is not None and max_norm is None and mode != "max" and weight.ndim == 2:
        return _marked_bags(input, weight, offsets, mode, per_sample_weights, include_last_offset, padding_idx)
    if offsets is not None or max_norm is not None or input.ndim != 2 or input.is_nested or weight.ndim != 2:
        settings = (norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)
        return F.embedding_bag(input, weight, offsets, max_norm, *settings)
    kept = torch.ones_like(input, dtype=torch.bool) if padding_idx is None else input != padding_idx % len(weight)
    rows = weight[input]
    if mode == "max":
        largest = rows.masked_fill(~kept.unsqueeze(-1), -torch.inf).max(1).values
        return largest.masked_fill(~kept.any(1, keepdim=True), 0.0)
    factor = kept.to(rows.dtype) if per_sample_weights is None else kept * per_sample_weights
    total = (factor.unsqueeze(-1) * rows).sum(1)
    return total / kept.sum(1, keepdim=True).clamp(min=1) if mode == "mean" else total


def _marked_bags(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor,
    mode: str,
    factors: Tensor | None,
    include_last: bool,
    padding_idx: int | None,
) -> Tensor:
    """Sums or averages of bags that follow one another, where offsets say at which index each begins."""
    count = len(offsets) - include_last
    bags = torch.searchsorted(offsets[:count], torch.arange(len(input), device=input.device), right=True) - 1
    kept = torch.ones_like(input, dtype=torch.bool) if padding_idx is None else input != padding_idx % len(weight)
    factor = kept.to(weight.dtype) if factors is None else kept * factors
    total = weight.new_zeros(count, weight.shape[1]).index_add(0, bags, factor.unsqueeze(-1) * weight[input])
    if mode == "sum":
        return total
    counts = weight.new_zeros(count).index_add(0, bags, kept.to(weight.dtype))
    return total / counts.clamp(min=1).unsqueeze(-1)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of a table, whose gradient is dense: sparse gradients have no shape that can be changed."""
    return F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, False)


def _in_one_piece(name: str) -> Function:
    """A loss of a linear layer that is not computed in chunks, whose operator has first derivatives alone."""
    function = getattr(F, name, None)

    def compute(*args: Any, **kwargs: Any) -> Tensor:
        return function(*args, **kwargs | {"options": None})  # type: ignore[misc]

    return compute


def lasting(function: Function, axes: int, indices: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, torch.Size]:
    """Which entries of an unpooling are in its result, and the shape of this.

    Where windows overlap, two of them may have found their maximum at the same place. One is written over the other
    there, which torch's backward pass does not know.

    Args:
        function: ``max_unpool1d``, ``max_unpool2d`` or ``max_unpool3d``.
        axes: how many dimensions are pooled.
        indices: where the maxima were.
        args: the other arguments of the function.
        kwargs: those by name.
    """
    numbers = torch.arange(1, indices.shape[-axes:].numel() + 1, dtype=torch.float64, device=indices.device)
    written = function(
        numbers.reshape(indices.shape[-axes:]).expand(indices.shape).contiguous(), indices, *args, **kwargs
    )
    last = written.flatten(-axes).gather(-1, indices.flatten(-axes)) == numbers
    return last.reshape(indices.shape), written.shape


def _unpooled(function: Function, axes: int) -> Function:
    """Values put back to where a pool of maxima found them."""

    def unpool(input: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        last, shape = lasting(function, axes, indices, *args, **kwargs)
        zeros = input.new_zeros(*shape[:-axes], shape[-axes:].numel())
        written = torch.where(last, input, 0.0).flatten(-axes)
        return zeros.scatter_add(-1, indices.flatten(-axes), written).reshape(shape)

    return unpool


def _writing(substitute: Function) -> Function:
    """The same, written into the first argument."""

    @functools.wraps(substitute)
    def write(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return input.copy_(substitute(input, *args, **kwargs))

    return write


def _by_torch_itself(recurrent: Function) -> Function:
    """A recurrent layer by torch's own kernels, which consist of operations with every derivative.

    They write into what is computed of the first state, which must be batched by ``vmap`` as the input is.
    """

    def run(input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if torch._C._functorch.is_functorch_wrapped_tensor(input):
            zero = torch.zeros_like(input).sum()
            packed = isinstance(args[0], Tensor) and not args[0].is_floating_point()
            states = args[packed]
            batched = states + zero if isinstance(states, Tensor) else tuple(state + zero for state in states)
            args = (*args[:packed], batched, *args[packed + 1 :])
        libraries: Any = (torch.backends.mkldnn, torch.backends.cudnn)
        before = [library.enabled for library in libraries]
        try:
            for library in libraries:
                library.enabled = False
            return recurrent(input, *args, **kwargs)
        finally:
            for library, enabled in zip(libraries, before, strict=True):
                library.enabled = enabled

    return run


_NAMED: dict[str, Function] = {
    "torch._weight_norm": weight_norm,
    "bilinear": bilinear,
    "F.embedding": embedding,
    "F.embedding_bag": embedding_bag,
    "glu": glu,
    "hardsigmoid": hardsigmoid,
    "det": matrix_functions.det,
    "linalg.det": matrix_functions.det,
    "slogdet": matrix_functions.slogdet,
    "linalg.slogdet": matrix_functions.slogdet,
    "logdet": matrix_functions.logdet,
    "linalg.solve": matrix_functions.solve,
    "linalg.solve_ex": matrix_functions.solve_ex,
    "linalg.tensorsolve": matrix_functions.tensorsolve,
    "linalg.eigh": matrix_functions.eigh,
    "linalg.eigvalsh": matrix_functions.eigvalsh,
    "linalg.svdvals": singular_values.svdvals,
    "linalg.svd": singular_values.linalg_svd,
    "svd": singular_values.svd,
    "linalg.cond": singular_values.cond,
    "triangular_solve": matrix_functions.triangular_solve,
    "cholesky_inverse": matrix_functions.cholesky_inverse,
    "linalg.householder_product": matrix_functions.householder_product,
    "orgqr": matrix_functions.householder_product,
    "norm": kink_functions.norm,
    "linalg.norm": kink_functions.linalg_norm,
    "linalg.vector_norm": kink_functions.vector_norm,
    "linalg.matrix_norm": kink_functions.matrix_norm,
    "dist": kink_functions.dist,
    "F.normalize": kink_functions.normalize,
    "cosine_similarity": kink_functions.cosine_similarity,
    "pairwise_distance": kink_functions.pairwise_distance,
    "cdist": kink_functions.cdist,
    "pdist": kink_functions.pdist,
    "renorm": kink_functions.renorm,
    "std": kink_functions.std,
    "std_mean": kink_functions.std_mean,
    "hypot": kink_functions.hypot,
    "atan2": kink_functions.atan2,
    "arctan2": kink_functions.atan2,
    "polar": kink_functions.polar,
    "clamp": kink_functions.clamp,
    "clip": kink_functions.clamp,
    "clamp_min": kink_functions.clamp_min,
    "clamp_max": kink_functions.clamp_max,
    "heaviside": kink_functions.heaviside,
    "cummax": kink_functions.cummax,
    "cummin": kink_functions.cummin,
    "fmax": kink_functions.fmax,
    "fmin": kink_functions.fmin,
    "prelu": kink_functions.prelu,
    "celu": kink_functions.celu,
    "sinc": kink_functions.sinc,
    "pow": kink_functions.power,
    "__pow__": kink_functions.power,
    "__rpow__": kink_functions.reflected_power,
    "float_power": kink_functions.float_power,
    "logaddexp": kink_functions.logaddexp,
    "logsumexp": kink_functions.logsumexp,
    "logcumsumexp": kink_functions.logcumsumexp,
    "cumprod": kink_functions.cumprod,
    "layer_norm": kink_functions.layer_norm,
    "F.instance_norm": kink_functions.instance_norm,
    "F.mish": mish,
    "segment_reduce": once_functions.segment_reduce,
    "scatter_reduce": once_functions.scatter_reduce,
    "F.linear_cross_entropy": _in_one_piece("linear_cross_entropy"),  # of newer torch
}

SUBSTITUTES: dict[Function, Function] = (
    {
        function: substitute
        for name, plain in _NAMED.items()
        for suffix, substitute in (("", plain), ("_", _writing(plain)))
        for function in functions_named(name + suffix)
    }
    | {
        function: _unpooled(function, axes)
        for axes, function in enumerate((F.max_unpool1d, F.max_unpool2d, F.max_unpool3d), 1)
    }
    | {
        F.multi_margin_loss: once_functions.multi_margin_loss,
        F.multilabel_margin_loss: once_functions.multilabel_margin_loss,
        F.triplet_margin_loss: once_functions.triplet_margin_loss,
        F.batch_norm: once_functions.batch_norm,
        F.ctc_loss: once_functions.ctc_loss,
    }
    | {layer: _by_torch_itself(layer) for layer in (_VF.lstm, _VF.gru, _VF.rnn_tanh, _VF.rnn_relu)}
)
"""What to compute in place of what, under all the names that it goes by and in place."""


_DIFFERENTIATES = frozenset(
    (
        torch.autograd.grad,
        torch.autograd.backward,
        Tensor.backward,
        Tensor.requires_grad_,
        Tensor.register_hook,
        Tensor.requires_grad.__set__,  # type: ignore[attr-defined]
    )
)

_OF_TORCH = frozenset(("aten", "prim", "prims"))


@functools.lru_cache(maxsize=1024)
def _is_known(function: Function) -> bool:
    """Whether forward mode knows of all that a function does."""
    hides = function is torch._C._set_grad_enabled or function in _DIFFERENTIATES or function in _LEAVES
    return not hides and not is_foreign(function)


def is_foreign(function: Function) -> bool:
    """Whether a function is an operator that torch was given from outside, as by ``torch.library``.

    Of those transforms know neither forward mode nor, of some, a backward pass, and take them for constant.
    """
    if isinstance(function, OpOverload):
        return function.namespace not in _OF_TORCH
    return isinstance(function, OpOverloadPacket) and str(function).partition(".")[0] not in _OF_TORCH


_LEAVES: frozenset[Function] = frozenset((Tensor.numpy, Tensor.__array__))


def has_substitute(function: Function) -> bool:
    """Whether `Substituting` does anything about a function."""
    return function in SUBSTITUTES or function in WITHOUT_DERIVATIVE or function is own_functions.CALL


unseen = torch._C.DisableTorchFunction
"""A context in which no mode sees what runs, so that looking at a tensor's shape takes no time."""


class Substituting(TorchFunctionMode):
    """Within this context, torch computes the substitutes.

    Raises:
        ForgetsError: in a transform, for functions with a backward that it would take for constant.
        ModuleError: a function without a derivative is differentiated, which torch would take for constant.
    """

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The substitute of a function, or the function."""
        kwargs = kwargs or {}
        if func is own_functions.CALL:
            own_functions.check_remembered(args[0])
        check_has_derivative(func, args, kwargs)
        if kwargs.get("out") is not None:
            return func(*args, **kwargs)
        return SUBSTITUTES.get(func, func)(*args, **kwargs)


class Watching(TorchFunctionMode):
    """Sees whether what runs within this context does what forward mode does not know of.

    Args:
        note: what is to be told of every function that runs, with its arguments.

    Attributes:
        widest: bytes of the largest tensor that it computes.
        switched: whether gradients were switched off or on.
        compiled: whether a function or method scripted by TorchScript ran; its forward derivatives are zero once it has
            optimised itself.
        nested: whether derivatives were taken, tensors made to require them, or their gradients changed by hooks; or an
            operator ran that torch was given from outside, whose derivatives transforms take for zero.
        left: whether values were handed to NumPy.
    """

    def __init__(self, note: Callable[[Function, Any, Any], None] | None = None) -> None:
        super().__init__()
        self.note = note
        self.widest = 0
        self.switched = False
        self.compiled = False
        self.nested = False
        self.left = False

    @property
    def hides(self) -> bool:
        """Whether autograd may have lost the way from the output to the input."""
        return self.nested or self.left or self.switched

    def __enter__(self) -> "Watching":
        """Watch, TorchScript included."""
        self._scripts = ScriptCalls(self._ran)
        self._scripts.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        """Watch no longer."""
        super().__exit__(*reason)
        self._scripts.__exit__(*reason)

    def _ran(self, traced: bool) -> None:
        self.compiled = self.compiled or not traced

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function itself."""
        if torch.compiler.is_compiling() or not _is_known(func):
            self.switched = self.switched or func is torch._C._set_grad_enabled
            self.nested = self.nested or func in _DIFFERENTIATES or is_foreign(func)
            self.left = self.left or func in _LEAVES
        if self.note is not None:
            with unseen():
                self.note(func, args, kwargs or {})  # profilers make no keywords an empty dict
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, Tensor):
            with unseen():
                self.widest = max(self.widest, answer.numel() * answer.element_size())
        return answer
