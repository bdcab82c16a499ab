"""What all tests share. The settings that need no code stand in pyproject.toml."""

import os
import shutil

import jaxtyping
import pytest
import torch


class SameStart:
    """Gives every test and every docstring example the same state of torch, whatever ran before it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


class Tiers:
    """Marks the cases that the quick tier leaves to the full one, before any are chosen by their marks."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for cases in by_test(items):
            mark = cases[0].get_closest_marker("quick")
            if mark is not None:
                for item in set(cases).difference(spread(cases, *mark.args)):
                    item.add_marker(pytest.mark.full)


class Each:
    """Of what has been chosen, keeps the cases that ``--each`` asks for."""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        count = config.getoption("--each")
        if count is None:
            return
        if count < 1:
            raise pytest.UsageError(f"--each takes a number of cases from 1 up, not {count}")
        kept = {item for cases in by_test(items) for item in spread(cases, count)}
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = [item for item in items if item in kept]


def by_test(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """The cases of each test."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    return list(cases.values())


def spread(cases: list[pytest.Item], count: int) -> list[pytest.Item]:
    """So many of the cases, spread evenly: the first, the last and what lies between."""
    most = min(count, len(cases))
    return [cases[round(number * (len(cases) - 1) / max(most - 1, 1))] for number in range(most)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--each", type=int, metavar="N", help="of the cases of each test, run N spread evenly, for checks that are slow"
    )


def pytest_configure(config: pytest.Config) -> None:
    # The tensors in tests are too small to gain from threads.
    torch.set_num_threads(1)
    # As plugins of their own they reach the examples in the package too, which lie outside this folder.
    config.pluginmanager.register(SameStart())
    config.pluginmanager.register(Tiers())
    config.pluginmanager.register(Each())


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls the package as its users do, without the checks of annotations that are switched on in tests.

    For tests of the package's own errors: an argument that contradicts its annotation gets as far as the library.
    """
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a browser that can open a page without a screen.

    Where there is none the test is skipped, or fails if the environment variable PULLGEO_REQUIRE_BROWSER is 1.
    """
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    reason = "no chromium on PATH; install it to have the pages checked (Debian: apt-get install chromium)"
    if os.environ.get("PULLGEO_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node() -> str:
    """Path of the program that runs JavaScript, 20 or newer.

    Where there is none the test is skipped, or fails if the environment variable PULLGEO_REQUIRE_NODE is 1.
    """
    path = shutil.which("node")
    if path is not None:
        return path
    reason = "no node on PATH; install it to have the page's mathematics checked (Debian: apt-get install nodejs)"
    if os.environ.get("PULLGEO_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
