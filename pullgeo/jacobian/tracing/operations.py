"""Which function of torch is which operation, under all the names that it goes by."""

from collections.abc import Callable
from typing import TypeVar

from pullgeo._torch.torch_names import Function, functions_named

Operation = TypeVar("Operation", bound=Function)

# begin with __i and write nothing
_NOT_IN_PLACE = ("__index__", "__int__", "__invert__", "__init__")

_operations: dict[Function, Function] = {}


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Register how an operation is recorded: ``(tape, *arguments)``, the arguments as torch takes them.

    Args:
        names: see `functions_named`. Methods that write in place follow by themselves: ``name_``, and names that begin
            with ``__i``.
    """

    def add(function: Operation) -> Operation:
        for name in names:
            for found in functions_named(name):
                _operations[found] = function
            for found in functions_named(name + "_") + (functions_named(name) if name.startswith("__i") else []):
                _operations[found] = function
        return function

    return add


def operation_for(function: Function) -> Function | None:
    """How a function of torch is recorded, if it can be."""
    return _operations.get(function)


def writes_in_place(function: Function) -> bool:
    """Whether a function of torch writes its result into its first argument."""
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return (name.startswith("__i") and name not in _NOT_IN_PLACE) or name in ("__setitem__", "__delitem__")
    return name.endswith("_")


def name_of(function: Function) -> str:
    """What users call a function of torch."""
    owner = getattr(function, "__self__", None)
    if getattr(function, "__name__", "") == "__get__" and owner is not None:
        return f"the attribute {owner.__name__}"
    return getattr(function, "__name__", str(function))


def _all(names: str) -> frozenset[Function]:
    return frozenset(function for name in names.split() for function in functions_named(name))


METADATA = _all(
    "shape.__get__ dtype.__get__ device.__get__ ndim.__get__ layout.__get__ requires_grad.__get__ is_cuda.__get__ "
    "is_cpu.__get__ is_mps.__get__ is_sparse.__get__ is_quantized.__get__ is_meta.__get__ is_nested.__get__ "
    "is_leaf.__get__ is_mkldnn.__get__ itemsize.__get__ nbytes.__get__ size dim ndimension numel nelement "
    "element_size stride is_contiguous is_floating_point is_complex is_signed get_device __len__ __repr__ __format__ "
    "is_same_size is_inference is_pinned"
)
"""What says nothing about the values."""

CONSTANT = _all(
    "gt lt ge le eq ne greater less greater_equal less_equal not_equal __eq__ __ne__ __gt__ __lt__ __ge__ __le__ isnan "
    "isfinite isinf isclose logical_not logical_and logical_or logical_xor any all argmax argmin argsort detach "
    "data.__get__ sign sgn signbit floor ceil round trunc floor_divide heaviside count_nonzero zeros_like ones_like "
    "full_like empty_like new_zeros new_ones new_full new_tensor new_empty bool long int short bucketize searchsorted "
    "one_hot"
)
"""What has no derivative, or zero wherever it has one: the result counts as a constant."""

READING = _all("item tolist numpy __bool__ __int__ __float__ __index__ __complex__ __array__ equal allclose")
"""What turns values into Python objects."""

RANDOM = _all(
    "rand_like randn_like randint_like bernoulli multinomial poisson normal uniform_ normal_ bernoulli_ exponential_ "
    "gumbel_softmax feature_dropout"
)
"""What draws anew at every call."""
