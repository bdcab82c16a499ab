"""What the commands take, and the help that teaches it."""

import argparse
from pathlib import Path

from pullgeo._version import __version__

SEGMENTS = 32
"""Those of `pullgeo.Newton`, which takes seconds to import and is not needed for the help."""

_ROOT = """\
Riemannian geometry of neural networks: the latent space of a decoder, measured and drawn.

Start here:

  pullgeo demo                    a trained digits model, its geodesics, one HTML page
  pullgeo report --help           the same page for your own model
  pullgeo explore --help          a living map of it, with exact geodesics between points that you drag
  pullgeo diagnose --help         whether its distances are worth computing, and can be trusted
"""

_DIAGNOSE = """\
Measure on random pairs of latents whether geometry is worth it for your model: how much shorter geodesics are than
straight lines, whether they keep to the data, where the decoder is flat, jumps or ignores directions; and say what to
do about it.

  pullgeo diagnose --decoder my_model:load_decoder --latents z.npy
"""

_DEMO = """\
Draw the latent space of a small variational autoencoder of handwritten digits, which comes with pullgeo: its latents,
how much the decoder stretches each place, geodesics between digits beside straight lines, and what is decoded along
them. The page is one file; open it in any browser, no network needed.

  pullgeo demo
  pullgeo demo -o ~/digits.html
"""

_WHAT_DECODERS = """\
what --decoder may name

  my_model:load_decoder           a function without arguments that returns the decoder
  my_model:decoder                a torch.nn.Module that exists when my_model is imported
  my_model:vae.decoder            an attribute of it
  my_model:vae.decode             a method of it
  my_model:vae                    a model with encode and decode, of which the latter is taken
  my_model:Decoder                a class that is made without arguments
  my_model:decode                 a function of latents (b, d), in torch's operations; weights in it may be float32

Naming a decoder imports its module, which runs the code in it, as `python my_model.py` would: name only modules that
you trust. The current folder is searched first for that import, and for nothing else.

A decoder that returns several things is told which one to take: --decoder-output 0 for the first of a tuple,
--decoder-output mean for the entry of a dict or the attribute of a distribution, --decoder-output mean+logvar for the
mean and deviation of a pair. A decoder that returns a distribution is measured by its Fisher-Rao metric if nothing is
said.
"""

_REPORT = """\
Draw the latent space of your own model: one HTML page with the latents, how much the decoder stretches each place,
geodesics beside straight lines, and, where the decoder returns pictures, what is decoded along them.
"""

_EXPLORE = """\
Open a living map of the latent space of your own model: drag two points, and the geodesic between them, what is decoded
along it, its length and its speed follow. Where the pointer rests, the geodesic is solved exactly, in all dimensions of
the latent space, by a small server on this machine. Needs: pip install "pullgeo[app]"
"""

_EXPLORE_EXAMPLES = """\
example: the model and the latents of `pullgeo report --help`

  pullgeo explore --decoder my_model:load_decoder --latents z.npy --labels y.npy --image-shape 28,28

The address that is printed has a random token; without it nothing is answered, and no other page can ask. Ctrl-C ends
the server. A decoder that fails or hangs does not: the page says what happened, and goes on with the next question.
"""

_REPORT_EXAMPLES = f"""\
example: a model in my_model.py, in the folder you are in

  # my_model.py
  import torch
  from torch import nn

  def load_decoder():                         # takes nothing, returns the trained decoder
      decoder = nn.Sequential(nn.Linear(2, 128), nn.Tanh(), nn.Linear(128, 784), nn.Sigmoid())
      decoder.load_state_dict(torch.load("decoder.pt", weights_only=True))
      return decoder.eval()

  # once, in Python: the latents (n, d) of your data, and their classes (n,) if there are any
  np.save("z.npy", encoder(x).detach().numpy())
  np.save("y.npy", labels)

  # then
  pullgeo report --decoder my_model:load_decoder --latents z.npy --labels y.npy --image-shape 28,28 -o page.html

{_WHAT_DECODERS}
A geodesic that was not found is drawn dashed and red, and the page says why and what to do.
"""

_PLANE = (
    "what to show of more than two dimensions, counted from 0: components (principal ones; the default), "
    "components:0,2, dims:3,1, or latents:4,0,7 for the plane through three latents"
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``run`` in its result names the module whose ``run`` does the work."""
    style = argparse.RawDescriptionHelpFormatter
    root = argparse.ArgumentParser(prog="pullgeo", description=_ROOT, formatter_class=style)
    root.add_argument("--version", action="version", version=f"pullgeo {__version__}")
    commands = root.add_subparsers(dest="command", metavar="command", title="commands")

    one = commands.add_parser(
        "demo", help="the latent space of handwritten digits", description=_DEMO, formatter_class=style
    )
    _add_output(one, "pullgeo-demo.html")
    one.set_defaults(run="pullgeo.cli.demo")

    two = commands.add_parser(
        "report",
        help="the same page for your own model",
        description=_REPORT,
        epilog=_REPORT_EXAMPLES,
        formatter_class=style,
    )
    _add_model(two)
    _add_pictures(two)
    two.add_argument(
        "--plane",
        action="append",
        metavar="PLANE",
        help=f"{_PLANE}; give it again for more, to choose from",
    )
    two.add_argument("--pairs", type=int, default=6, metavar="N", help="how many geodesics (%(default)s)")
    _add_search(two)
    _add_output(two, "pullgeo-report.html")
    two.set_defaults(run="pullgeo.cli.report")

    three = commands.add_parser(
        "explore",
        help="a living map of your own model: drag two points, see the exact geodesic",
        description=_EXPLORE,
        epilog=_EXPLORE_EXAMPLES,
        formatter_class=style,
    )
    _add_model(three)
    _add_pictures(three)
    three.add_argument(
        "--plane", metavar="PLANE", help=f"{_PLANE}; that is what the map begins with, others are chosen on it"
    )
    _add_segments(three)
    three.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (%(default)s, which only this machine reaches); with any other, whoever has the address "
        "that is printed can have geodesics solved here",
    )
    three.add_argument("--port", type=int, default=0, help="where to listen (any that is free)")
    three.add_argument("--no-browser", action="store_true", help="print the address, do not open it")
    three.add_argument(
        "--time-limit", type=float, default=10.0, metavar="SECONDS", help="that a solve may take (%(default)g)"
    )
    three.add_argument("--threads", type=int, default=2, metavar="N", help="solves at the same time (%(default)s)")
    three.set_defaults(run="pullgeo.cli.explore")

    four = commands.add_parser(
        "diagnose",
        help="whether geodesic distances are worth it for your model, and can be trusted",
        description=_DIAGNOSE,
        epilog=_WHAT_DECODERS,
        formatter_class=style,
    )
    _add_model(four)
    four.add_argument("--pairs", type=int, default=64, metavar="N", help="how many geodesics (%(default)s)")
    _add_search(four)
    four.set_defaults(run="pullgeo.cli.diagnose")
    return root


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--decoder", required=True, metavar="MODULE:NAME", help="your decoder, see below; imports MODULE"
    )
    command.add_argument(
        "--decoder-output",
        type=_key,
        metavar="KEY_OR_INDEX",
        help="which part of what the decoder returns, if that is a tuple, a dict, or a distribution: 0, mean; or "
        "mean+std, mean+logvar for both of a pair",
    )
    command.add_argument("--latents", required=True, type=Path, metavar="Z.NPY", help="array (n, d) of latents")


def _add_pictures(command: argparse.ArgumentParser) -> None:
    command.add_argument("--labels", type=Path, metavar="Y.NPY", help="array (n,) of classes")
    command.add_argument(
        "--image-shape",
        type=_shape,
        metavar="H,W",
        help="see each output as a picture of this height and width; C,H,W for 3 channels. Outputs that have such a "
        "shape already need no telling",
    )


def _add_search(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=int, default=0, help="which latents they join (%(default)s)")
    _add_segments(command)


def _add_segments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--segments",
        type=int,
        default=SEGMENTS,
        metavar="T",
        help="segments of a curve in the search, twice as many in the end (%(default)s)",
    )


def _add_output(command: argparse.ArgumentParser, default: str) -> None:
    words = "where to write the page (%(default)s); an older page of this name is replaced"
    command.add_argument("-o", "--output", type=Path, default=Path(default), metavar="PAGE.HTML", help=words)


def _key(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected height,width or channels,height,width such as 28,28, got {text!r}")
    return shape
