"""The page: one whole file that fetches nothing."""

import re
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from pullgeo.errors import OptionError
from pullgeo.viz import Cell, Section, Table, latent_report, page
from tests.viz.conftest import Scene
from tests.viz.reading import figures_in

LINE = go.Figure(go.Scatter(x=[0, 1], y=[2, 3], name="</script><script>alert(1)</script>"))


@pytest.fixture(scope="module")
def report(flat_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    s = flat_scene
    sections = latent_report(s.manifold, s.z, s.labels, s.solution, names=["p", "q", "r"], image_shape=(3, 5))
    return page(sections, tmp_path_factory.mktemp("report") / "page.html", title="A & B", lead="One.\n\nTwo <three>.")


def own(path: Path) -> str:
    """The page without plotly's library."""
    text = path.read_text(encoding="utf-8")
    library = get_plotlyjs()
    assert text.count(library) == 1
    return text.replace(library, "")


def test_a_report_has_a_map_a_table_and_strips(report: Path):
    figures = figures_in(report)
    assert [figure["data"][0]["type"] for figure in figures] == ["heatmap", "scatter"]
    assert len(re.findall("<tr>", own(report))) == 4


def test_a_report_without_pictures_has_no_strips(flat_scene: Scene):
    s = flat_scene
    assert len(latent_report(s.manifold, s.z, None, s.solution)) == 2


def test_nothing_is_loaded_from_elsewhere(report: Path):
    text = own(report)
    assert not re.findall(r"""(?:src|href|action|data)\s*=\s*["']?(?!data:|javascript)""", text.split("<script", 1)[0])
    assert not re.findall(r"<(?:link|iframe|img|object|embed|base)\b|<script[^>]+src|@import|url\(", text)
    assert "http://" not in text
    assert "https://" not in text


def test_a_policy_forbids_it_too(report: Path):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', own(report))
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|'self'", policy)


def test_words_are_text(report: Path):
    text = own(report)
    assert "<title>A &amp; B</title>" in text
    assert "<p>One.</p>\n<p>Two &lt;three&gt;.</p>" in text


def test_names_cannot_end_a_script(tmp_path: Path):
    path = page([LINE], tmp_path / "page.html")
    assert "<script>alert" not in own(path)
    assert figures_in(path)[0]["data"][0]["name"] == "</script><script>alert(1)</script>"


def test_tables_and_bare_figures_stand_alone(tmp_path: Path):
    table = Table(("", "x"), ((Cell("1", "badge"), Cell("<7>", "number")),), caption="units & all")
    path = page([table, LINE, Section("Only words", "Some.")], tmp_path / "page.html")
    text = own(path)
    assert '<td><span class="badge">1</span></td><td class="number">&lt;7&gt;</td>' in text
    assert "<caption>units &amp; all</caption>" in text
    assert "<h2>Only words</h2>" in text
    assert len(figures_in(path)) == 1


def test_an_empty_table_has_its_headings(tmp_path: Path):
    assert "<th" in own(page([Table(("a", "b"), ())], tmp_path / "page.html"))


def test_the_same_input_gives_the_same_file(tmp_path: Path):
    first, second = (page([LINE], tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_it_replaces_an_older_page_and_leaves_nothing_else(tmp_path: Path):
    (tmp_path / "page.html").write_text("old")
    with (tmp_path / "page.html").open() as reader:
        page([LINE], tmp_path / "page.html")
        assert reader.read() == "old"  # whoever has the old one open keeps it
    assert page([LINE], str(tmp_path / "page.html")) == tmp_path / "page.html"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").stat().st_size > 1e6


def test_an_interrupted_page_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "page.html").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        page([LINE], tmp_path / "page.html")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"page.html": b"old"}


def test_a_missing_folder_is_an_os_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        page([LINE], tmp_path / "nowhere" / "page.html")


@pytest.mark.usefixtures("without_type_checks")
def test_other_entries_are_refused(tmp_path: Path):
    for entry in ("words", Section("x", "y", "z")):
        with pytest.raises(OptionError, match="sections must be Section, Figure or Table, got"):
            page([entry], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())
