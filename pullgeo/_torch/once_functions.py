"""Functions whose derivatives torch cannot differentiate, or wrongly: the same by operations that have all of them.

Where a margin is met exactly, derivatives are those of torch's own backward pass: zero.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import _reduction
from torch.nn import functional as F

from pullgeo._torch.kink_functions import pairwise_distance


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float | int = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``Σ_{i≠t} w_t max(0, margin - x_t + x_i)^p / c``."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    x = torch.atleast_2d(input)
    own = target.reshape(-1, 1).expand(len(x), 1)
    terms = torch.relu(margin - x.gather(1, own) + x) ** p
    if weight is not None:
        terms = terms * weight[own]
    others = torch.arange(x.shape[1], device=x.device) != own
    losses = torch.where(others, terms, 0.0).sum(1) / x.shape[1]
    return _reduced(losses if input.ndim > 1 else losses.reshape(target.shape), reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``Σ_{j∈t} Σ_{i∉t} max(0, 1 - x_j + x_i) / c``, where the labels t end before the first negative one."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    x, labels = torch.atleast_2d(input), torch.atleast_2d(target)
    counts = (labels < 0).cumsum(1) == 0
    labels = labels.clamp(min=0)
    classes = torch.arange(x.shape[1], device=x.device)
    wanted = ((labels.unsqueeze(2) == classes) & counts.unsqueeze(2)).any(1)
    terms = torch.relu(1 - x.gather(1, labels).unsqueeze(2) + x.unsqueeze(1))
    losses = torch.where(counts.unsqueeze(2) & ~wanted.unsqueeze(1), terms, 0.0).sum((1, 2)) / x.shape[1]
    return _reduced(losses if input.ndim > 1 else losses.squeeze(0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | int = 1.0,
    p: float | int = 2,
    eps: float | int = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """``max(0, d(a, p) - d(a, n) + margin)``; with ``swap`` the nearer one of a and p stands for a beside n."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    # what torch refuses, it refuses itself
    F.triplet_margin_loss(anchor.detach(), positive.detach(), negative.detach(), margin, p, eps, swap)
    other = pairwise_distance(anchor, negative, p, eps)
    if swap:
        other = torch.minimum(other, pairwise_distance(positive, negative, p, eps))
    losses = torch.clamp_min(margin + pairwise_distance(anchor, positive, p, eps) - other, 0)
    return _reduced(losses, reduction)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | int = 0.1,
    eps: float | int = 1e-5,
) -> Tensor:
    """Channels brought to mean zero and variance one over the batch: torch's tangents have wrong gradients."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    # what torch refuses, it refuses itself; it moves the running statistics too
    F.batch_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    dims = [d for d in range(input.ndim) if d != 1]
    centred = input - input.mean(dims, keepdim=True)
    y = centred * (centred.square().mean(dims, keepdim=True) + eps).rsqrt()
    shape = (-1, *[1] * (input.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """``-log Σ_π Π_t p_t(π_t)`` over all alignments of the labels, by the forward recursion over time.

    Torch's backward pass takes it for granted that the probabilities of a step add up to one; this is the derivative
    whether they do or not. Source: Graves et al., *Connectionist temporal classification*, ICML 2006, section 4.1.
    """
    single = log_probs.ndim == 2
    logs = log_probs.unsqueeze(1) if single else log_probs
    times, counts = _numbers(input_lengths), _numbers(target_lengths)
    device, n, widest = logs.device, logs.shape[1], max([*counts, 0])
    labels = torch.full((n, widest), blank, dtype=torch.long, device=device)
    flat = targets.reshape(-1) if targets.ndim == 1 or single else None
    start = 0
    for i, count in enumerate(counts):
        labels[i, :count] = targets[i, :count] if flat is None else flat[start : start + count]
        start += count
    # labels with blanks around each
    path = torch.full((n, 2 * widest + 1), blank, dtype=torch.long, device=device)
    path[:, 1::2] = labels
    # a label may follow another one with no blank between
    skips = torch.zeros_like(path, dtype=torch.bool)
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    # what is impossible has a logarithm of which derivatives are finite
    never = torch.finfo(logs.dtype).min / 4
    first = torch.arange(path.shape[1], device=device) < 2
    ended = torch.tensor(times, device=device).unsqueeze(1)
    paths = path.expand(n, path.shape[1])
    alpha = torch.where(first, logs[0].gather(1, paths), never)
    for step in range(1, max([*times, 0])):
        one = F.pad(alpha, (1, 0), value=never)[:, :-1]
        two = torch.where(skips, F.pad(alpha, (2, 0), value=never)[:, :-2], never)
        moved = torch.logsumexp(torch.stack([alpha, one, two]), 0) + logs[step].gather(1, paths)
        alpha = torch.where(ended > step, moved.clamp(min=never), alpha)
    last = 2 * torch.tensor(counts, device=device).unsqueeze(1)
    # after the last label or after the blank behind it; without labels there is the blank alone
    before = torch.where(last > 0, alpha.gather(1, (last - 1).clamp(min=0)), never)
    total = torch.logsumexp(torch.cat([alpha.gather(1, last), before], 1), 1)
    possible = (total > never / 2) & (ended.squeeze(1) > 0)
    losses = torch.where(possible, -total, 0.0 if zero_infinity else torch.inf)
    if reduction == "mean":
        return (losses / torch.tensor(counts, dtype=logs.dtype, device=device).clamp(min=1)).mean()
    return losses.sum() if reduction == "sum" else losses.squeeze(0) if single else losses


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """What is scattered to each place, reduced; torch's tangents of products are wrong.

    Products are taken over a table of all places times all sources of a row.
    """
    if reduce != "prod" or not (input.is_floating_point() or input.is_complex()):
        return torch.scatter_reduce(input, dim, index, src, reduce, include_self=include_self)
    # what torch refuses, it refuses itself
    torch.scatter_reduce(input.detach(), dim, index, src.detach(), reduce, include_self=include_self)
    if input.ndim == 0:
        return scatter_reduce(input[None], 0, index.reshape(1), src.reshape(1), reduce, include_self=include_self)[0]
    base, places = input.movedim(dim, -1), index.movedim(dim, -1)
    sources = src[tuple(slice(n) for n in index.shape)].movedim(dim, -1)
    rows = tuple(slice(n) for n in places.shape[:-1])
    meets = places.unsqueeze(-1) == torch.arange(base.shape[-1], device=index.device)
    product = torch.where(meets, sources.unsqueeze(-1), 1.0).prod(-2)
    own = base[rows].clone()  # of which the product needs the values, also where the result is written over them
    reduced = product * own if include_self else torch.where(meets.any(-2), product, own)
    if reduced.shape != base.shape:
        # rows to which nothing is scattered stay as they are
        padding = [part for n, m in zip(base.shape[::-1], reduced.shape[::-1], strict=True) for part in (0, n - m)]
        untouched = torch.ones_like(reduced, dtype=torch.bool)
        reduced = torch.where(F.pad(untouched, padding), F.pad(reduced, padding), base)
    return reduced.movedim(-1, dim)


def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Tensor:
    """Sum, average, product or extreme of each of the segments that follow one another along a dimension."""
    sizes = lengths if lengths is not None else None if offsets is None else offsets.diff()
    # what torch refuses, it refuses itself
    checked = torch.segment_reduce(
        data.detach(), reduce, lengths=lengths, indices=indices, offsets=offsets, axis=axis, unsafe=unsafe,
        initial=initial,
    )  # fmt: skip
    if sizes is None:
        return checked
    if sizes.ndim > 1:  # segments of every row
        rows = zip(data, sizes, strict=True)
        given = {"axis": axis - 1, "unsafe": unsafe, "initial": initial}
        return torch.stack([segment_reduce(row, reduce, lengths=own, **given) for row, own in rows])
    found = [_of_segment(part, reduce, axis, initial) for part in data.split_with_sizes(sizes.tolist(), axis)]
    return torch.stack(found, axis) if found else checked


def _of_segment(part: Tensor, reduce: str, axis: int, initial: Any) -> Tensor:
    if part.shape[axis] == 0:
        empty = {"sum": 0.0, "prod": 1.0, "mean": torch.nan, "max": -torch.inf, "min": torch.inf}[reduce]
        return part.sum(axis) + (empty if initial is None else initial)
    if reduce in ("max", "min"):
        extreme = part.amax(axis) if reduce == "max" else part.amin(axis)
        if initial is None:
            return extreme
        bound = torch.full_like(extreme, initial)
        return torch.maximum(extreme, bound) if reduce == "max" else torch.minimum(extreme, bound)
    if reduce == "prod":
        return part.prod(axis) * (1.0 if initial is None else initial)
    total = part.sum(axis) + (0.0 if initial is None else initial)
    return total / part.shape[axis] if reduce == "mean" else total


def _numbers(lengths: Any) -> list[int]:
    if isinstance(lengths, Tensor):
        return [int(length) for length in lengths.reshape(-1).tolist()]
    return [int(length) for length in (lengths if isinstance(lengths, Sequence) else (lengths,))]


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
