"""The generalised Gauss-Newton matrix: the Fisher information of a likelihood, pulled back through a network."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian.base import ChunkSize, all_added_up
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.likelihood.base import Likelihood
from pullgeo.metric.base import Metric
from pullgeo.metric.block_diagonal import BlockDiagonal
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.over_batch import batch_sum, sum_diag
from pullgeo.typing import Decoder, Parameters


def ggn(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    wrt: str = "input",
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Metric:
    """``Jᵀ I(f(x)) J`` at each point: of the negative log-likelihood, with respect to the input or to the weights.

    With respect to the input of a decoder this is the Fisher-Rao metric of the latent space. What it holds is the
    Jacobian and the information or its root, so ask it for what you need: ``.diag()`` is exact and forms neither a
    matrix nor a stack of Jacobians, ``.apply(v)`` costs a push and a pull, ``.root()`` is ``Jᵀ R`` of low rank,
    ``.dense()`` multiplies out.

    Args:
        module: the network whose output are the parameters of the likelihood; a function too for ``wrt="input"``.
        x: a batch of points.
        likelihood: what the output means.
        wrt: ``"input"`` or ``"weight"``; weights are one vector, as `linearize` has them.
        chunk_size: how many tangents or cotangents the answers of the metric move at a time; ``"auto"`` bounds the
            memory by bytes.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        A metric on the flattened input ``(b, n_in)`` or on the weights ``(b, P)``, sample by sample.

    Raises:
        ShapeError: the likelihood does not take this output.
        OptionError, ModuleError, CoupledSamplesError: as `linearize`.

    Source: Schraudolph, *Fast curvature matrix-vector products for second-order gradient descent*, Neural Computation
    2002; Martens, *New insights and perspectives on the natural gradient method*, JMLR 2020, section 9.

    Example:
        >>> from pullgeo.likelihood import Categorical
        >>> f = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 5))
        >>> G = ggn(f, torch.zeros(7, 2), Categorical(), wrt="weight")
        >>> G.diag().shape
        torch.Size([7, 29])
    """
    y, J = linearize(module, x, wrt, parameters)
    return likelihood.fisher(y).pullback(J.in_chunks(chunk_size))


def ggn_diag(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    wrt: str = "weight",
    reduction: str = "none",
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Float[Tensor, "*b n"]:
    """The exact diagonal of `ggn`, of every sample or of the sum over the batch.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        wrt: ``"input"`` or ``"weight"``.
        reduction: ``"none"``; or for weights, which all samples share, ``"sum"`` or ``"mean"`` over the batch: layers
            then add up while they contract, and an array of the batch times the weights never exists.
        chunk_size: how many outputs are swept back at a time; ``"auto"`` bounds the memory by bytes. The graph of one
            chunk is never kept while the next is computed, so a diagonal that can be differentiated takes no more.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        ``(b, n)``, or ``(P,)`` with a reduction.

    Raises:
        OptionError: the reduction is not one of these, or given for ``wrt="input"``. Others as `ggn`.

    Cost: r backward sweeps, with r the number of outputs, in chunks.

    Example:
        >>> from pullgeo.likelihood import Bernoulli
        >>> ggn_diag(torch.nn.Linear(1, 2), torch.zeros(8, 1), Bernoulli(), reduction="mean").shape
        torch.Size([4])
    """
    y, J = linearize(module, x, wrt, parameters)
    J = J.in_chunks(chunk_size)
    over_batch = batch_sum("ggn_diag", J, reduction)
    fisher = likelihood.fisher(y)
    if over_batch is None:
        return fisher.pullback(J).diag()
    total = sum_diag(Implicit(J, fisher), over_batch)
    return total / len(x) if reduction == "mean" else total


def ggn_blocks(
    module: torch.nn.Module,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> BlockDiagonal:
    """The blocks of ``ggn(..., wrt="weight")`` for the layers, without what lies between them.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        chunk_size: as for `ggn_diag`.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        One block ``(b, P_l, P_l)`` for each layer that has such parameters of its own.

    Raises:
        ShapeError, ModuleError, CoupledSamplesError: as `ggn`.
        OptionError: layers share some of their parameters but not all, so they have no blocks of their own.

    Cost: r backward sweeps, with r the rank of the information, and the blocks.
    """
    y, J = linearize(module, x, "weight", parameters)
    J = J.in_chunks(chunk_size)
    if not isinstance(J, WeightGraph):
        raise OptionError("ggn_blocks: the derivative with respect to weights must be a graph of layers.")
    layout = J.layout
    owners = [stage.own for stage in J.stages if stage.own is not None]
    sets = {frozenset(map(id, own.parameters)) for own in owners}
    if sum(map(len, sets)) > len(frozenset().union(*sets)):
        raise OptionError(
            "ggn_blocks: layers share some of their parameters but not all of them, so they have no blocks of their "
            "own. Ask for ggn(...).dense() or .diag()."
        )
    metric = Implicit(J, likelihood.fisher(y))

    def term(part: slice) -> tuple[Tensor, ...]:
        return tuple(block for block in J.pull_blocks(*metric.factors(part)) if block is not None)

    totals = all_added_up(over_chunks(list(J.sweep_parts(metric.terms)) or [slice(0, 0)], term))
    places = layout.split(torch.arange(layout.size, device=y.device))
    by_parameter = {id(p): place for p, place in zip(layout.parameters, places, strict=True)}
    unique = {frozenset(map(id, own.parameters)): (own, block) for own, block in zip(owners, totals, strict=True)}
    blocks = tuple(block for _, block in unique.values())
    positions = tuple(torch.cat([by_parameter[id(p)] for p in own.parameters]) for own, _ in unique.values())
    return BlockDiagonal(blocks, positions, layout.size)
