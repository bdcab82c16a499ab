"""How many curves a search has seen that are locally shortest."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.starts.base import Candidates

APART = 1e-2
"""Distance between nodes of the same number, relative to the length, from which on two curves are distinct."""


def count_minima(
    space: DiscreteEnergy,
    proposed: Candidates,
    nodes: Float[Tensor, "c n d"],
    energy: Float[Tensor, " c"],
    ended: Bool[Tensor, " c"],
    pairs: int,
) -> Int[Tensor, " p"]:
    """Number of distinct curves for each pair; at least 1.

    Energies cannot tell: two ways around a hill are as long as each other. So nodes of the same number are compared,
    by the lengths of the chords between them.

    Args:
        space: what measures the chords.
        proposed: which pair each candidate is for.
        nodes: where the candidates ended.
        energy: their energies.
        ended: which of them came to an end that counts.
        pairs: the number of pairs.

    Cost: k²/2 chords for each node, for k candidates of a pair.
    """
    table = proposed.of_each(pairs)
    found = (table >= 0) & ended[table] & torch.isfinite(energy)[table]
    new = found.clone()
    for i in range(1, table.shape[1]):
        for j in range(i):
            both = (found[:, i] & found[:, j]).nonzero().squeeze(1)
            a, b = table[both, i], table[both, j]
            layers = torch.stack([nodes[a], nodes[b]], 2).flatten(0, 1).unsqueeze(2)
            chords = space.chord_lengths(layers).reshape(len(both), nodes.shape[1])
            close = chords.amax(1) <= APART * energy[a].clamp(min=0).sqrt()
            new[both[close], i] = False
    return new.sum(1).clamp(min=1)
