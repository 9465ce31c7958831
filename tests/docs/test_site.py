"""The site builds without warnings, has every page, command and public name, and resources nothing from other hosts."""

import html.parser
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import rivals
from rivals.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PEERS = ("torchattacks", "foolbox", "art")


class Links(html.parser.HTMLParser):
    """Links of a page, resources that it resources, and its anchors."""

    def __init__(self, page):
        super().__init__()
        self.links, self.resources, self.anchors = [], [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script") and found.get("src"):
            self.resources.append(found["src"])
        if tag == "link" and found.get("href") and found.get("rel") != "canonical":
            self.resources.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason="the site needs the extra docs: pip install 'rivals[docs]'")
    home = tmp_path_factory.mktemp("site")
    flags = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(home / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags, str(ROOT / "docs"), str(home / "html")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return home / "html"


def test_every_page_is_built_and_in_the_menu(site):
    menu = Links(site / "index.html").links
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / name).exists()
        assert name == Path("index.html") or name.as_posix() in menu


def test_links_resolve_and_no_resource_is_external(site):
    pages = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    for page, found in pages.items():
        assert not [each for each in found.resources if urlsplit(each).netloc], page
        for each in [*found.links, *found.resources]:
            parts = urlsplit(each)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.name} points to {each}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, f"{page.name} points to {each}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_every_command_is_documented_with_its_flags(site):
    page = (site / "reference" / "commands.html").read_text()
    for command in COMMANDS:
        assert f"usage: rivals {command} " in page, command
    for flag in ("--until", "--eps", "--sigma", "--truncation"):
        assert flag in page


def test_every_public_name_is_documented(site):
    documented = set().union(*(Links(page).anchors for page in (site / "reference").glob("*.html")))
    overview = (site / "reference" / "rivals.html").read_text()
    for name in set(rivals.__all__) - {"attacks", "metrics"}:
        assert f"rivals.{name}" in documented or f"rivals.{name}<" in overview, name
    for module in (rivals.attacks, rivals.metrics):
        for name in module.__all__:
            if callable(getattr(module, name)):
                assert f"{module.__name__}.{name}" in documented


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", PEERS)
def test_names_of_other_libraries_exist(peer):
    pytest.importorskip(peer, reason=f"{peer} comes with the extra bench")
    named = set(re.findall(rf"`[^`]*?\b({peer}\.[\w.]+)", (ROOT / "docs" / "coming-from.md").read_text()))
    assert len(named) > 8
    for name in named:
        assert pydoc.locate(name) is not None, f"there is no {name}"
