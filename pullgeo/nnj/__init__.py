"""torch.nn with Jacobian products: the same classes, with the same constructors, that also push and pull metrics.

``nnj.Linear``, ``nnj.Conv2d``, ... are subclasses of the torch classes of the same name; `convert_to_nnj` turns any
module into one with products. The products themselves are documented in `pullgeo.nnj.products`; `explain` says which
path serves each part of a network.
"""

from torch.nn import Parameter, functional, init

from pullgeo.jacobian import explain
from pullgeo.nnj import products, utils
from pullgeo.nnj.classes import with_products
from pullgeo.nnj.containers import ResidualBlock, Sequential, SkipConnection
from pullgeo.nnj.convert import convert_to_nnj
from pullgeo.nnj.elementwise import ArcTanh, OneMinusX, Reciprocal, Sinusoidal, Sqrt, TruncExp
from pullgeo.nnj.layers import L2Norm, PosLinear, Reshape
from pullgeo.nnj.likelihoods import LogBernoulli, LogBinaryBernoulli, LogGaussian
from pullgeo.nnj.module import Module
from pullgeo.nnj.torch_layers import LAYERS, OTHERS, PARTS
from pullgeo.nnj.utils import invert_block_diagonal

__all__ = [
    "ArcTanh",
    "L2Norm",
    "LogBernoulli",
    "LogBinaryBernoulli",
    "LogGaussian",
    "Module",
    "OneMinusX",
    "Parameter",
    "PosLinear",
    "Reciprocal",
    "Reshape",
    "ResidualBlock",
    "Sequential",
    "Sinusoidal",
    "SkipConnection",
    "Sqrt",
    "TruncExp",
    "convert_to_nnj",
    "explain",
    "functional",
    "init",
    "invert_block_diagonal",
    "products",
    "utils",
    "with_products",
]
__all__ += [*LAYERS, *OTHERS, *PARTS]

# Type checkers read the names of these classes in __init__.pyi.
globals().update(LAYERS, **OTHERS, **PARTS)
