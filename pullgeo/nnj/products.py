"""The Jacobian products of any module, as functions; the methods of `pullgeo.nnj.Module` call these.

``J`` is the Jacobian of ``module`` at each point of the batch ``x``, with respect to its input or to its weights.
Tangent spaces are flat: ``n_in = prod(x.shape[1:])``, ``n_out = prod(y.shape[1:])``, and P is the number of weights,
in the order of ``torch.nn.utils.parameters_to_vector(module.parameters())``; below, n is n_in or P, as ``wrt`` says.
What all share:

* ``module``: any `torch.nn.Module`; with ``wrt="input"`` also a function of a batch that treats samples independently.
* ``x``: the batch of points ``(b, *in)``.
* ``val``: the module's output at ``x`` if it is at hand, or None. Its shape is checked; answers never depend on it.
* ``wrt``: ``"input"`` or ``"weight"`` (``"weights"`` is the same). A module without parameters gives None for the
  latter.
* ``chunk_size``: how many tangents or cotangents are moved at a time, which bounds the memory beside the answer;
  ``"auto"``, and None, bound it by bytes.
* ``parameters``: for ``wrt="weight"``, which parameters are the weights: ``"all"``, ``"trainable"``, names or patterns,
  or a function ``(name, parameter) -> bool``, as for `pullgeo.linearize`. P, vectors, matrices and blocks are of these.
* A matrix need not be symmetric, nor positive; None is the Euclidean metric.
* Everything is differentiable with respect to ``x``, the weights and the vector or matrix.

They raise:

* `OptionError`: ``wrt``, ``parameters``, ``reduction`` or ``chunk_size`` is something else, or flags contradict each
  other.
* `ShapeError`, `DtypeError`, `DeviceError`: ``x``, ``val``, the vector or the matrix does not fit.
* `CoupledSamplesError`: the module mixes the samples of a batch or is random; most need ``module.eval()``.
* `ModuleError`: the module is not materialised, does not return one tensor with a row per sample, or does what torch
  cannot differentiate.
"""

from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pullgeo._torch.submodules import all_parameters
from pullgeo.errors import OptionError
from pullgeo.jacobian.base import ChunkSize, Jacobian, checked_chunk_size
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.metric.base import Metric
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.over_batch import Reduction, checked_reduction, sum_dense, sum_diag
from pullgeo.nnj.arguments import Side, check_value, checked_wrt
from pullgeo.nnj.reduction import of_sum, over_samples
from pullgeo.nnj.weight_blocks import block_metric, pull_blocks, sum_blocks, weight_layout
from pullgeo.typing import Decoder, Parameters, Wrt

Points = Shaped[Tensor, "b *x"]
Matrix = Float[Tensor, "b *m"]


def jacobian(
    module: Decoder,
    x: Points,
    val: Tensor | None = None,
    wrt: str = "input",
    chunk_size: ChunkSize = "auto",
    parameters: Parameters = "all",
) -> Float[Tensor, "b n_out n"] | None:
    """``J`` itself.

    Cost: min(n, n_out) passes and ``b n_out n`` memory; the products need neither.

    Example:
        >>> import torch
        >>> jacobian(torch.nn.ReLU(), torch.tensor([[1.0, -1.0]]))
        tensor([[[1., 0.],
                 [0., 0.]]])
    """
    J = _linearized("jacobian", module, x, val, checked_wrt("jacobian", wrt), parameters, chunk_size)
    return None if J is None else J.dense()


def jvp(
    module: Decoder,
    x: Points,
    val: Tensor | None,
    vector: Float[Tensor, "b *v"],
    wrt: str = "input",
    parameters: Parameters = "all",
) -> Float[Tensor, "b n_out"] | None:
    """``J v``: a tangent pushed forward.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        vector: ``(b, n)``, or ``(b, *in)`` in the input's own shape.
        wrt: ``"input"`` or ``"weight"``.
        parameters: which are the weights.

    Cost: one forward pass with a tangent.
    """
    wrt_ = checked_wrt("jvp", wrt)
    J = _linearized("jvp", module, x, val, wrt_, parameters)
    return None if J is None else flat(J.push(Side.source("jvp", J, wrt_).vector(vector))).squeeze(0)


def vjp(
    module: Decoder,
    x: Points,
    val: Tensor | None,
    vector: Float[Tensor, "b *v"],
    wrt: str = "input",
    parameters: Parameters = "all",
) -> Float[Tensor, "b n"] | None:
    """``Jᵀ w``: a cotangent pulled back, for weights sample by sample.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        vector: ``(b, n_out)``, or ``(b, *out)`` in the output's own shape.
        wrt: ``"input"`` or ``"weight"``.
        parameters: which are the weights.

    Cost: one backward pass.
    """
    J = _linearized("vjp", module, x, val, checked_wrt("vjp", wrt), parameters)
    return None if J is None else flat(J.pull(Side.target("vjp", J).vector(vector))).squeeze(0)


def jmp(
    module: Decoder,
    x: Points,
    val: Tensor | None = None,
    matrix: Matrix | None = None,
    wrt: str = "input",
    chunk_size: ChunkSize = "auto",
    parameters: Parameters = "all",
) -> Float[Tensor, "b n_out k"] | None:
    """``J M``: the k columns of a matrix pushed forward.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        matrix: ``(b, n, k)``, or None for the identity.
        wrt: ``"input"`` or ``"weight"``.
        chunk_size: how many columns are pushed at a time.
        parameters: which are the weights.

    Cost: k forward passes.
    """
    wrt_ = checked_wrt("jmp", wrt)
    J = _linearized("jmp", module, x, val, wrt_, parameters, chunk_size)
    if J is None or matrix is None:
        return None if J is None else J.dense()
    return flat(J.push_in_chunks(Side.source("jmp", J, wrt_).columns(matrix))).permute(1, 2, 0)


def mjp(
    module: Decoder,
    x: Points,
    val: Tensor | None = None,
    matrix: Matrix | None = None,
    wrt: str = "input",
    chunk_size: ChunkSize = "auto",
    parameters: Parameters = "all",
) -> Float[Tensor, "b k n"] | None:
    """``M J``: the k rows of a matrix pulled back.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        matrix: ``(b, k, n_out)``, or None for the identity.
        wrt: ``"input"`` or ``"weight"``.
        chunk_size: how many rows are pulled at a time.
        parameters: which are the weights.

    Cost: k backward passes.
    """
    J = _linearized("mjp", module, x, val, checked_wrt("mjp", wrt), parameters, chunk_size)
    if J is None or matrix is None:
        return None if J is None else J.dense()
    return flat(J.pull_in_chunks(Side.target("mjp", J).rows(matrix))).permute(1, 0, 2)


def jmjTp(
    module: Decoder,
    x: Points,
    val: Tensor | None = None,
    matrix: Matrix | list[Any] | tuple[Any, ...] | None = None,
    wrt: str = "input",
    from_diag: bool = False,
    to_diag: bool = False,
    diag_backprop: bool = False,
    chunk_size: ChunkSize = "auto",
    parameters: Parameters = "all",
) -> Float[Tensor, "b n_out ..."] | None:
    """``J M Jᵀ``: a metric pushed forward.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        matrix: ``(b, n, n)``; ``(b, n)`` if ``from_diag``; None for the Euclidean metric. For weights also the nested
            list of blocks that `jTmjp` returns; a whole ``(b, P, P)`` counts with its blocks between layers.
        wrt: ``"input"`` or ``"weight"``. With weights and None this is the neural tangent kernel of each point.
        from_diag: the matrix is given by its diagonal.
        to_diag: return the diagonal only, exactly.
        diag_backprop: propagate only diagonals from layer to layer, in one forward pass: an approximation, exact for
            single layers and elementwise chains. It implies a diagonal in and out; of a whole matrix it takes the
            diagonal.
        chunk_size: how many tangents or cotangents are moved at a time.
        parameters: which are the weights.

    Returns:
        ``(b, n_out, n_out)``, or ``(b, n_out)`` if ``to_diag`` or ``diag_backprop``.

    Cost: min(n, n_out) passes; with ``to_diag`` no matrix is formed. With a chunk size below that number twice as many
    passes, and for the kernel of weights one for each pair of chunks.

    Example:
        >>> import torch
        >>> jmjTp(torch.nn.Tanh(), torch.zeros(1, 2), None, torch.ones(1, 2, 2))
        tensor([[[1., 1.],
                 [1., 1.]]])
    """
    where, wrt_ = "jmjTp", checked_wrt("jmjTp", wrt)
    J = _linearized(where, module, x, val, wrt_, parameters, chunk_size)
    if J is None:
        return None
    side = Side.source(where, J, wrt_)
    if isinstance(matrix, list | tuple):
        M = _metric_of_blocks(side, module, matrix, from_diag, J)
        matrix, from_diag = (M.diag(), True) if diag_backprop else (None, False)
    else:
        M = None
    if diag_backprop:
        return flat(J.push_squared_layerwise(side.diagonal(matrix, from_diag))).squeeze(0)
    M = side.metric(matrix, from_diag) if M is None else M
    return _multiplied_out(M.pushforward(J), J.signature.batch, to_diag)


def jTmjp(
    module: Decoder,
    x: Points,
    val: Tensor | None = None,
    matrix: Matrix | None = None,
    wrt: str = "input",
    from_diag: bool = False,
    to_diag: bool = False,
    diag_backprop: bool = False,
    full: bool = False,
    reduction: str = "none",
    chunk_size: ChunkSize = "auto",
    parameters: Parameters = "all",
) -> Float[Tensor, "..."] | list[Any] | None:
    """``Jᵀ M J``: a metric pulled back.

    With the Euclidean metric on a decoder's output this is the metric of its latent space; with weights and the
    Hessian of a loss, the generalised Gauss-Newton matrix of each point.

    Args:
        module: see the head of this module, as for all arguments not named here.
        x: the points.
        val: the output, or None.
        matrix: ``(b, n_out, n_out)``; ``(b, n_out)`` if ``from_diag``; None for the Euclidean metric.
        wrt: ``"input"`` or ``"weight"``.
        from_diag: the matrix is given by its diagonal.
        to_diag: return the diagonal only, exactly.
        diag_backprop: propagate only diagonals from layer to layer, in one backward pass: an approximation, exact for
            single layers and elementwise chains. It implies a diagonal in and out; of a whole matrix it takes the
            diagonal.
        full: for weights, return the whole matrix and not only the blocks of the layers.
        reduction: ``"sum"`` or ``"mean"`` over the batch instead of ``"none"``; the answer then has no batch. Over
            weights the layers add up while they contract, and an array of the batch times the weights never exists. The
            inputs of different samples are different points: their metrics are computed one by one and then added,
            which gives the matrix whose leading eigenvectors span the active subspace.
        chunk_size: how many tangents or cotangents are moved at a time.
        parameters: which are the weights.

    Returns:
        ``(b, n, n)``, or ``(b, n)`` if ``to_diag`` or ``diag_backprop``. For weights without ``full`` the blocks on the
        diagonal: ``(b, P_l, P_l)`` for a layer, and for a container the list of those of its children that have
        parameters. Without the ``b`` if there is a reduction.

    Cost: min(n, n_out) passes and one contraction; with ``to_diag`` no matrix is formed. With a chunk size below that
    number the tangents of an input are pulled back besides. A reduction over weights takes n_out passes.

    Example:
        >>> import torch
        >>> f = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 5))
        >>> jTmjp(f, torch.zeros(7, 2)).shape
        torch.Size([7, 2, 2])
        >>> [block.shape for block in jTmjp(f, torch.zeros(7, 2), wrt="weight")]
        [torch.Size([7, 9, 9]), torch.Size([7, 20, 20])]
        >>> jTmjp(f, torch.zeros(7, 2), wrt="weight", to_diag=True, reduction="mean").shape
        torch.Size([29])
    """
    where, wrt_ = "jTmjp", checked_wrt("jTmjp", wrt)
    if full and (to_diag or diag_backprop):
        raise OptionError(
            "jTmjp: full=True asks for the whole matrix, to_diag and diag_backprop for a diagonal. Drop one."
        )
    over_batch = checked_reduction(where, reduction)
    J = _linearized(where, module, x, val, wrt_, parameters, chunk_size)
    if J is None:
        return None
    side = Side.target(where, J)
    if isinstance(J, WeightGraph) and isinstance(module, nn.Module):
        total = over_batch != "none"
        if diag_backprop:
            w = side.diagonal(matrix, from_diag)
            pulled = BatchSum(J).pull_squared_layerwise(w) if total else J.pull_squared_layerwise(w)
            return of_sum(pulled.squeeze(0), over_batch, len(x))
        G = Implicit(J, side.metric(matrix, from_diag))
        if total:
            return _over_batch(G, J, module, to_diag, full, over_batch)
        return G.diag() if to_diag else G.dense() if full else pull_blocks(G, weight_layout(module, x.device, J.layout))
    if diag_backprop:
        answer = flat(J.pull_squared_layerwise(side.diagonal(matrix, from_diag))).squeeze(0)
    else:
        answer = _multiplied_out(side.metric(matrix, from_diag).pullback(J), J.signature.batch, to_diag)
    return over_samples(answer, over_batch)


def _over_batch(
    G: Implicit, J: WeightGraph, module: nn.Module, to_diag: bool, full: bool, reduction: Reduction
) -> Tensor | list[Any]:
    if to_diag:
        total: Any = sum_diag(G, BatchSum(J))
    else:
        total = (
            sum_dense(G, BatchSum(J)) if full else sum_blocks(G, weight_layout(module, J.signature.device, J.layout))
        )
    return of_sum(total, reduction, J.signature.batch)


def _linearized(
    where: str,
    module: Decoder,
    x: Tensor,
    val: Tensor | None,
    wrt: Wrt,
    parameters: Parameters,
    chunk_size: ChunkSize = "auto",
) -> Jacobian | None:
    if wrt == "weight" and isinstance(module, nn.Module) and not all_parameters(module):
        return None
    _, J = linearize(module, x, wrt, parameters)
    check_value(where, val, J)
    return J.in_chunks(checked_chunk_size(where, chunk_size))


def _metric_of_blocks(
    side: Side, module: Decoder, blocks: list[Any] | tuple[Any, ...], from_diag: bool, J: Jacobian
) -> Metric:
    layout = None
    if isinstance(module, nn.Module) and isinstance(J, WeightGraph):
        layout = weight_layout(module, side.device, J.layout)
    if side.name != "weight" or from_diag or not isinstance(layout, list):
        raise OptionError(
            f"{side.where}: matrix is a list of blocks, which is accepted for wrt='weight' of a container, without "
            "from_diag. Pass a tensor."
        )
    return block_metric(side, blocks, layout)


def _multiplied_out(M: Metric, batch: int, to_diag: bool) -> Tensor:
    answer = M.diag() if to_diag else M.dense()
    # a metric that is the same everywhere has no batch of its own
    return answer if answer.ndim == (2 if to_diag else 3) else answer.expand(batch, *answer.shape).clone()
