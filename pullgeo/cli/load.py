"""What a user names on the command line, loaded: arrays in files and decoders in modules."""

import functools
import importlib
import inspect
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pullgeo.cli.failure import guarded
from pullgeo.errors import DataError, ModuleError, OptionError, ShapeError
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.stats.points import as_points
from pullgeo.viz.batches import at_home, evaluated


def load_latents(arguments: Namespace) -> tuple[Tensor, np.ndarray | None]:
    """The arrays that ``--latents`` and ``--labels`` name.

    Raises:
        DataError, DtypeError, NonFiniteError: a file cannot be read as an array of finite numbers.
        ShapeError: there are no two latents of two dimensions, or not one label for each of them.
    """
    z = as_points(f"--latents {arguments.latents}", load_array("--latents", arguments.latents))
    if min(z.shape) < 2:
        raise ShapeError(
            f"--latents: expected an array (n, d) with n and d at least 2, got {tuple(z.shape)} in {arguments.latents}."
        )
    labels = None if arguments.labels is None else load_array("--labels", arguments.labels)
    if labels is not None and labels.shape != (len(z),):
        raise ShapeError(
            f"--labels: expected an array of shape ({len(z)},), one class for each latent, got {labels.shape} in "
            f"{arguments.labels}."
        )
    return z, labels


def load_manifold(arguments: Namespace, z: Tensor) -> PullbackManifold:
    """The latent space of the decoder that ``--decoder`` names, tried out on two latents.

    Raises:
        PullgeoError: the decoder cannot be found or used; the message says why.
    """
    manifold = PullbackManifold(load_decoder(arguments.decoder), output=arguments.decoder_output)
    try_out(manifold, z)
    return manifold


_OTHERS = (
    "Write the array again: numpy.save(path, torch.load(file).numpy()) for a tensor, numpy.save(path, "
    'numpy.loadtxt(file, delimiter=",")) for a table.'
)


def load_array(option: str, path: Path) -> np.ndarray:
    """The array in an ``.npy`` file; pickled objects, which could run code, are refused.

    Raises:
        DataError: the file cannot be read as one array of numbers or strings.
    """
    expected = f"{option}: expected an array written by numpy.save in {path}"
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{expected}, got no such file. Check the path.") from error
    except OSError as error:
        raise DataError(f"{expected}, got: {error.strerror or error}. Check the path.") from error
    except (ValueError, EOFError) as error:
        if "file contains pickled" in str(error):  # what numpy takes anything for that it does not know
            raise DataError(f"{expected}, got a file of another kind. {_OTHERS}") from error
        raise DataError(f"{expected}, got: {error}. Write it with numpy.save(path, array).") from error
    if not isinstance(found, np.ndarray):
        found.close()
        if any(name.endswith("data.pkl") for name in found.files):
            raise DataError(f"{expected}, got what torch.save has written. {_OTHERS}")
        raise DataError(f"{expected}, got an archive of several ({', '.join(found.files)}). Save the one array alone.")
    return found


def load_decoder(name: str) -> Any:
    """The decoder that ``module:attribute`` names, of a module in the current folder or an installed one.

    What can be called without arguments, a class included, is a factory, and what it returns is the decoder.

    Raises:
        OptionError: the name is not of this form.
        ModuleError: the module cannot be imported, has no such attribute, or what it names cannot be a decoder.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise OptionError(f"--decoder: expected MODULE:NAME such as my_model:load_decoder, got {name!r}.")
    found = _attribute(_module(module_name), module_name, attribute)
    if not callable(found) and not callable(getattr(found, "decode", None)):
        raise ModuleError(
            f"--decoder: {name} is a {type(found).__name__}, expected a torch.nn.Module, a function of latents, or a "
            "function without arguments that returns one of them."
        )
    if _takes_nothing(found):
        made = guarded(f"--decoder: {name}() failed", found)
        if isinstance(made, type):
            raise ModuleError(f"--decoder: {name}() returned the class {made.__name__}. {_factory(made.__name__)}")
        if not callable(made) and not callable(getattr(made, "decode", None)):
            raise ModuleError(
                f"--decoder: {name}() returned a {type(made).__name__}, expected a torch.nn.Module or a function of "
                "latents. Does it forget to return the decoder?"
            )
        return made
    if isinstance(found, type):
        raise ModuleError(
            f"--decoder: {name} is a class that needs arguments: {_signature(found)}. "
            f"{_factory(found.__name__ + '(...)')}"
        )
    if _takes_a_path(found):
        raise ModuleError(
            f"--decoder: {name} takes {_signature(found)}, and a function that takes something is called with latents. "
            f"{_factory(found.__name__ + '(...)')}"
        )
    return found


def _factory(call: str) -> str:
    return (
        f"Write a function without arguments and name that: def load(): decoder = {call}; "
        "decoder.load_state_dict(torch.load('weights.pt', weights_only=True)); return decoder.eval()"
    )


def _signature(found: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(found))
    except (TypeError, ValueError):  # built in
        return "(...)"


def _takes_a_path(found: Callable[..., Any]) -> bool:
    """Whether the first argument is said to be text or a path, which latents are not."""
    try:
        first = next(iter(inspect.signature(found).parameters.values()), None)
    except (TypeError, ValueError):
        return False
    return first is not None and first.annotation in (str, Path, "str", "Path")


def try_out(manifold: PullbackManifold, z: Tensor) -> None:
    """Do with two latents, under guard, all that will be done with the rest.

    Raises:
        PullgeoError: what pullgeo has to say of the decoder.
        ModuleError: the decoder itself failed.
    """
    home = evaluated(manifold)
    few = at_home(home, z[:2])
    shape = f"{tuple(few.shape)} of {str(few.dtype).removeprefix('torch.')}"
    fix = (
        "Geodesics are solved in double precision: name the torch.nn.Module itself, which is converted for that, or "
        "let the function take float64 latents."
    )
    guarded(
        f"--decoder: it failed on latents {shape}",
        lambda: home.metric(few).dense(),
        fix if few.dtype == torch.float64 else "",
    )
    double = manifold.in_double()
    line = torch.stack([few[:1], few[:1], few[-1:]], dim=1).double()
    guarded(
        "--decoder: it failed on float64 latents or has no second derivative", lambda: double.expand_energy(line), fix
    )


def _module(name: str) -> Any:
    here = str(Path.cwd())
    importlib.invalidate_caches()
    try:
        with _first_on_path(here):
            found = guarded(
                f"--decoder: module {name} failed when it was imported", lambda: importlib.import_module(name)
            )
    except ModuleError as error:
        cause = error.__cause__
        if (
            isinstance(cause, ModuleNotFoundError)
            and cause.name is not None
            and (name + ".").startswith(cause.name + ".")
        ):
            raise ModuleError(
                f"--decoder: {name} is neither a module in this folder, {here}, nor installed ({cause}). Go to the "
                "folder it is in, or install it."
            ) from cause
        raise
    _check_not_hidden(name, found, Path(here))
    return found


@contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    """The folder is searched first for modules; afterwards last, for what they import later: it hides nothing then."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the module may have changed the path
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _check_not_hidden(name: str, found: Any, folder: Path) -> None:
    """Raise where the folder has such a module, and another one of the same name was loaded before."""
    path = folder.joinpath(*name.split("."))
    ours = [file.resolve() for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    loaded = getattr(found, "__file__", None)
    if ours and (loaded is None or Path(loaded).resolve() not in ours):
        raise ModuleError(
            f"--decoder: {ours[0].name} in this folder has the name of a module that is loaded already, {name} "
            f"({loaded or 'built in'}). Rename the file."
        )


def _attribute(module: Any, module_name: str, attribute: str) -> Any:
    found = module
    for part in attribute.split("."):
        # a property runs code of the user's
        has = guarded(f"--decoder: {module_name}:{attribute} failed", functools.partial(hasattr, found, part))
        if not has:
            public = ", ".join(name for name in vars(module) if not name.startswith("_")) or "no public names"
            raise ModuleError(f"--decoder: module {module_name} has no {attribute!r}; it has {public}.")
        found = getattr(found, part)
    return found


def _takes_nothing(found: Callable[..., Any]) -> bool:
    if isinstance(found, nn.Module):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):  # it needs arguments, or is built in and does not tell
        return False
    return True
