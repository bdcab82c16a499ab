"""What a layer's derivative is: ``linearize(module, x) -> (y, J)`` with ``J`` a structured linear map.

Add a layer by registering a function with `rule`; see `pullgeo.jacobian.rules` for all of ours. The kinds of Jacobians
that a rule may return are listed here too.
"""

from pullgeo.jacobian import rules
from pullgeo.jacobian.base import ChunkSize, Jacobian, LinearKind, Transpose
from pullgeo.jacobian.explain import Explanation, Row, explain
from pullgeo.jacobian.kinds.autodiff import Autodiff
from pullgeo.jacobian.kinds.chain import Chain, compose
from pullgeo.jacobian.kinds.convolution import Convolution
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.glu import GatedLinear
from pullgeo.jacobian.kinds.graph import Edge, Graph, Node
from pullgeo.jacobian.kinds.index_map import IndexMap
from pullgeo.jacobian.kinds.linear_map import LinearMap, Reshape
from pullgeo.jacobian.kinds.local_response import LocalResponse
from pullgeo.jacobian.kinds.normalization import RowNormalization
from pullgeo.jacobian.kinds.recurrence import Recurrence
from pullgeo.jacobian.kinds.separable import Separable
from pullgeo.jacobian.kinds.softmax import LogSoftmax, Softmax
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.registry import registered_classes, rule, rule_for, weight_rule, weight_rule_for
from pullgeo.jacobian.sample_gradients import named_sample_gradients, sample_gradient_norms, sample_gradients
from pullgeo.jacobian.signature import Signature
from pullgeo.jacobian.tangent_kernel import tangent_kernel
from pullgeo.jacobian.weights.autodiff import AutodiffWeight
from pullgeo.jacobian.weights.base import WeightKind
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.jacobian.weights.broadcast import BroadcastWeight
from pullgeo.jacobian.weights.conv import ConvWeight
from pullgeo.jacobian.weights.linear import LinearWeight
from pullgeo.jacobian.weights.lookup import LookupWeight
from pullgeo.jacobian.weights.parameters import ParameterLayout
from pullgeo.jacobian.weights.partial import PartialWeight
from pullgeo.jacobian.weights.shared import SharedWeight
from pullgeo.jacobian.weights.weight_graph import WeightGraph

__all__ = [
    "Autodiff",
    "AutodiffWeight",
    "BatchSum",
    "BroadcastWeight",
    "Chain",
    "ChunkSize",
    "ConvWeight",
    "Convolution",
    "Edge",
    "Elementwise",
    "Explanation",
    "GatedLinear",
    "Graph",
    "IndexMap",
    "Jacobian",
    "LinearKind",
    "LinearMap",
    "LinearWeight",
    "LocalResponse",
    "LogSoftmax",
    "LookupWeight",
    "Node",
    "ParameterLayout",
    "PartialWeight",
    "Recurrence",
    "Reshape",
    "Row",
    "RowNormalization",
    "Separable",
    "SharedWeight",
    "Signature",
    "Softmax",
    "Transpose",
    "WeightGraph",
    "WeightKind",
    "compose",
    "explain",
    "linearize",
    "named_sample_gradients",
    "registered_classes",
    "rule",
    "rule_for",
    "rules",
    "sample_gradient_norms",
    "sample_gradients",
    "tangent_kernel",
    "weight_rule",
    "weight_rule_for",
]
