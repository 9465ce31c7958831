"""The site: it builds without a warning, has every page, verb and public name, and needs nothing from elsewhere."""

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
from rivals import cli

ROOT = Path(__file__).parents[1]
PEERS = ("torchattacks", "foolbox", "art")


class Links(html.parser.HTMLParser):
    """What a page points to, what it loads, and the places in it that can be pointed to."""

    def __init__(self, page):
        super().__init__()
        self.links, self.loads, self.places = [], [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script") and found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("href") and found.get("rel") != "canonical":
            self.loads.append(found["href"])


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


def test_every_page_is_there_and_in_the_menu(site):
    menu = Links(site / "index.html").links
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (site / name).exists()
        assert name == Path("index.html") or name.as_posix() in menu


def test_links_lead_somewhere_and_nothing_comes_from_elsewhere(site):
    pages = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    for page, found in pages.items():
        assert not [each for each in found.loads if urlsplit(each).netloc], page
        for each in [*found.links, *found.loads]:
            parts = urlsplit(each)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.exists(), f"{page.name} points to {each}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].places, f"{page.name} points to {each}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_every_verb_is_told_of_with_its_flags(site):
    page = (site / "reference" / "commands.html").read_text()
    for verb in cli.VERBS:
        assert f"usage: rivals {verb} " in page, verb
    for flag in ("--until", "--eps", "--sigma", "--truncation"):
        assert flag in page


def test_every_public_name_is_told_of(site):
    told = set().union(*(Links(page).places for page in (site / "reference").glob("*.html")))
    whole = (site / "reference" / "rivals.html").read_text()
    for name in set(rivals.__all__) - {"attacks", "metrics"}:
        assert f"rivals.{name}" in told or f"rivals.{name}<" in whole, name
    for module in (rivals.attacks, rivals.metrics):
        for name in module.__all__:
            if callable(getattr(module, name)):
                assert f"{module.__name__}.{name}" in told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", PEERS)
def test_what_the_peers_are_said_to_have_they_have(peer):
    pytest.importorskip(peer, reason=f"{peer} comes with the extra bench")
    said = set(re.findall(rf"`[^`]*?\b({peer}\.[\w.]+)", (ROOT / "docs" / "coming-from.md").read_text()))
    assert len(said) > 8
    for name in said:
        assert pydoc.locate(name) is not None, f"there is no {name}"
