"""`torch.nn.Module` with Jacobian products."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo._torch.copying import computed_tensors
from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.jacobian.base import ChunkSize, Jacobian
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.weights.parameters import ParameterLayout, from_coordinates
from pullgeo.nnj import products
from pullgeo.typing import Parameters


class _Count:
    """Number of parameters; being no data descriptor, it gives way to an attribute that a subclass sets."""

    def __get__(self, instance: nn.Module | None, owner: type) -> Any:
        return self if instance is None else ParameterLayout.of(instance).size


class Module(nn.Module):
    """A `torch.nn.Module` whose Jacobian products are methods.

    Every class of `pullgeo.nnj` derives from it and from the torch class of the same name. For a network of your own,
    derive from it in place of `torch.nn.Module`, or convert an existing one with `convert_to_nnj`; nothing is stored
    on the module and no hook is set, so that calls at different points, ``deepcopy``, ``pickle`` and ``state_dict`` do
    not interfere.

    The arguments, shapes, costs and errors of the products are documented in `pullgeo.nnj.products`. Names that begin
    with an underscore are the same methods.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> f = nnj.Sequential(nnj.Linear(2, 3), nnj.Tanh(), nnj.Linear(3, 5))
        >>> x = torch.zeros(7, 2)
        >>> f.jTmjp(x, None, None, wrt="input").shape
        torch.Size([7, 2, 2])
        >>> y, J = f(x, jacobian=True)
        >>> J.shape
        torch.Size([7, 5, 2])
    """

    # The forward below computes what the torch class computes, so that class's Jacobian rule serves this one.
    forward_is_transparent = True

    _n_params = _Count()

    def forward(self, *args: Any, jacobian: bool | Tensor = False, **kwargs: Any) -> Any:
        """What the torch class computes, and on request the derivative with it.

        Args:
            args: as the torch class takes them.
            jacobian: True for ``(y, J)`` with ``J`` of shape ``(b, *out, *in)``; a tensor ``J0`` of shape ``(b, *in,
                *k)`` for ``(y, J J0)``, of shape ``(b, *out, *k)``, as networks are chained.
            kwargs: as the torch class takes them.

        Raises:
            OptionError: a Jacobian is asked of several arguments, or of a module whose hooks this call would miss.
            ShapeError: ``J0`` does not end in the input's space.
        """
        if jacobian is False:
            return super().forward(*args, **kwargs)
        if self._forward_hooks or self._forward_pre_hooks:
            raise OptionError(
                f"{type(self).__name__}.forward: this module has hooks, which forward does not run. "
                "Call module(x, jacobian=True)."
            )
        return _value_and_jacobian(self, jacobian, args, kwargs)

    def __call__(self, *args: Any, jacobian: bool | Tensor = False, **kwargs: Any) -> Any:
        """As `forward`, with hooks; the derivative is then that of the module with its hooks."""
        if jacobian is False:
            return super().__call__(*args, **kwargs)
        return _value_and_jacobian(self, jacobian, args, kwargs)

    def jacobian(
        self,
        x: Tensor,
        val: Tensor | None = None,
        wrt: str = "input",
        chunk_size: ChunkSize = "auto",
        parameters: Parameters = "all",
    ) -> Tensor | None:
        """``J``, ``(b, n_out, n)``; see `products.jacobian`."""
        return products.jacobian(self, x, val, wrt, chunk_size, parameters)

    def jvp(
        self, x: Tensor, val: Tensor | None, vector: Tensor, wrt: str = "input", parameters: Parameters = "all"
    ) -> Tensor | None:
        """``J v`` of ``v (b, n)``, ``(b, n_out)``; see `products.jvp`."""
        return products.jvp(self, x, val, vector, wrt, parameters)

    def vjp(
        self, x: Tensor, val: Tensor | None, vector: Tensor, wrt: str = "input", parameters: Parameters = "all"
    ) -> Tensor | None:
        """``Jᵀ w`` of ``w (b, n_out)``, ``(b, n)``; see `products.vjp`."""
        return products.vjp(self, x, val, vector, wrt, parameters)

    def jmp(
        self,
        x: Tensor,
        val: Tensor | None = None,
        matrix: Tensor | None = None,
        wrt: str = "input",
        chunk_size: ChunkSize = "auto",
        parameters: Parameters = "all",
    ) -> Tensor | None:
        """``J M`` of ``M (b, n, k)``, ``(b, n_out, k)``; see `products.jmp`."""
        return products.jmp(self, x, val, matrix, wrt, chunk_size, parameters)

    def mjp(
        self,
        x: Tensor,
        val: Tensor | None = None,
        matrix: Tensor | None = None,
        wrt: str = "input",
        chunk_size: ChunkSize = "auto",
        parameters: Parameters = "all",
    ) -> Tensor | None:
        """``M J`` of ``M (b, k, n_out)``, ``(b, k, n)``; see `products.mjp`."""
        return products.mjp(self, x, val, matrix, wrt, chunk_size, parameters)

    def jmjTp(
        self,
        x: Tensor,
        val: Tensor | None = None,
        matrix: Tensor | list[Any] | tuple[Any, ...] | None = None,
        wrt: str = "input",
        from_diag: bool = False,
        to_diag: bool = False,
        diag_backprop: bool = False,
        chunk_size: ChunkSize = "auto",
        parameters: Parameters = "all",
    ) -> Tensor | None:
        """``J M Jᵀ`` of ``M (b, n, n)``, ``(b, n_out, n_out)``; see `products.jmjTp`."""
        return products.jmjTp(self, x, val, matrix, wrt, from_diag, to_diag, diag_backprop, chunk_size, parameters)

    def jTmjp(
        self,
        x: Tensor,
        val: Tensor | None = None,
        matrix: Tensor | None = None,
        wrt: str = "input",
        from_diag: bool = False,
        to_diag: bool = False,
        diag_backprop: bool = False,
        full: bool = False,
        reduction: str = "none",
        chunk_size: ChunkSize = "auto",
        parameters: Parameters = "all",
    ) -> Any:
        """``Jᵀ M J`` of ``M (b, n_out, n_out)``, ``(b, n, n)`` or blocks over weights; see `products.jTmjp`."""
        return products.jTmjp(
            self, x, val, matrix, wrt, from_diag, to_diag, diag_backprop, full, reduction, chunk_size, parameters
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy, also of a module that keeps what it computed, as ``torch.nn.utils.weight_norm`` does."""
        inherited = getattr(super(), "__deepcopy__", None)
        if inherited is not None:
            return inherited(memo)
        for tensor in computed_tensors(self):
            memo.setdefault(id(tensor), tensor.detach().clone())
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    _jacobian = jacobian
    _jvp = jvp
    _vjp = vjp
    _jmp = jmp
    _mjp = mjp
    _jmjTp = jmjTp
    _jTmjp = jTmjp

    def get_weight(self, parameters: Parameters = "all") -> Float[Tensor, " p"]:
        """The parameters as one vector of length P, connected to them for differentiation.

        Complex parameters have two coordinates for each entry, as ``torch.view_as_real`` orders them.

        Args:
            parameters: which are the weights, as for `pullgeo.linearize`.

        Raises:
            OptionError: ``parameters`` is something else, or chooses none.
        """
        layout = ParameterLayout.of(self, parameters, "get_weight")
        return layout.vector() if layout.parameters else torch.zeros(0)

    def set_weight(self, weight: Float[Tensor, "..."], parameters: Parameters = "all") -> None:
        """Write a vector of length P into the parameters, which stay the same objects.

        Args:
            weight: the vector.
            parameters: which are the weights, as for `pullgeo.linearize`.

        Raises:
            ShapeError: the vector has another shape than ``(P,)``.
            DtypeError: it is not a tensor of real numbers.
            OptionError: ``parameters`` is something else, or chooses none.
        """
        layout = ParameterLayout.of(self, parameters, "set_weight")
        if not isinstance(weight, Tensor):
            raise DtypeError(f"set_weight: expected a torch.Tensor, got {type(weight).__name__}.")
        if weight.is_complex():
            raise DtypeError(
                f"set_weight: expected real numbers, got {weight.dtype}. Complex parameters have two coordinates for "
                "each entry: torch.view_as_real(w).flatten()."
            )
        if weight.shape != (layout.size,):
            raise ShapeError(
                f"set_weight: expected one vector of shape ({layout.size},), the number of parameters of "
                f"{type(self).__name__}, got {tuple(weight.shape)}."
            )
        with torch.no_grad():
            for parameter, piece in zip(layout.parameters, layout.split(weight), strict=True):
                parameter.copy_(from_coordinates(piece, parameter))


def forward_of(cls: type[nn.Module]) -> Callable[..., Any]:
    """`Module.forward` for a subclass of a torch class, which tools that trace a ``forward`` see through.

    Such tools, `torch.fx.symbolic_trace` among them, read the names of its arguments off the function it wraps.
    """

    def forward(self: Module, *args: Any, jacobian: bool | Tensor = False, **kwargs: Any) -> Any:
        return Module.forward(self, *args, jacobian=jacobian, **kwargs)

    forward.__doc__ = Module.forward.__doc__
    forward.__signature__ = inspect.signature(Module.forward)  # type: ignore[attr-defined]
    forward.__wrapped__ = cls.forward  # type: ignore[attr-defined]
    return forward


def _value_and_jacobian(
    module: nn.Module, jacobian: bool | Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    if len(args) != 1 or kwargs:
        raise OptionError(
            f"{type(module).__name__}: jacobian= needs exactly one input, got {len(args)} positional arguments and "
            f"the keywords {sorted(kwargs)}. Wrap the module in a function of one tensor and use pullgeo.linearize."
        )
    if jacobian is not True and not isinstance(jacobian, Tensor):
        raise OptionError(
            f"{type(module).__name__}: jacobian must be a bool or a tensor (b, *in, *k), got {jacobian!r}."
        )
    y, J = linearize(module, args[0])
    return y, _unflattened(J) if jacobian is True else _pushed(type(module).__name__, J, jacobian)


def _unflattened(J: Jacobian) -> Tensor:
    s = J.signature
    return J.dense().reshape(s.batch, *s.out_shape, *s.in_shape)


def _pushed(name: str, J: Jacobian, J0: Tensor) -> Tensor:
    s = J.signature
    given = (s.batch, *s.in_shape)
    if J0.shape[: len(given)] != given:
        raise ShapeError(
            f"{name}: jacobian must have shape {given} followed by the shape of what it is taken with respect to, got "
            f"{tuple(J0.shape)}. It is the derivative of this module's input."
        )
    if J0.dtype != s.dtype:
        raise DtypeError(f"{name}: jacobian must be {s.dtype} as the module's output is, got {J0.dtype}.")
    trailing = J0.shape[len(given) :]
    T = J0.reshape(*given, trailing.numel()).movedim(-1, 0)
    return J.push(T).movedim(0, -1).reshape(s.batch, *s.out_shape, *trailing)
