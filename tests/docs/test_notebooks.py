"""The notebooks: one code in two languages, with the outputs of that code, and nothing of the machine that ran it."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

MISSING = "the notebooks need the extra notebooks: pip install 'rivals[notebooks]'"
nbformat, *_ = (
    pytest.importorskip(package, reason=MISSING) for package in ("nbformat", "jupytext", "nbclient", "ipykernel")
)

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("make_notebooks", ROOT / "notebooks" / "make.py")
make = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make)

NAMES = make.names()
CHINESE = re.compile(r"[\u4e00-\u9fff]")
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
BOTH = [(language, name) for name in NAMES for language in make.LANGUAGES]


def texts(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def made(language, name):
    return nbformat.read(ROOT / "notebooks" / language / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_are_six_in_both_languages():
    assert [name[:2] for name in NAMES] == ["1-", "2-", "3-", "4-", "5-", "6-"]
    for language in make.LANGUAGES:
        found = sorted(path.name for path in (ROOT / "notebooks" / language).iterdir() if path.suffix != "")
        assert found == sorted(f"{name}.{kind}" for name in NAMES for kind in ("ipynb", "py"))


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_code_and_their_own_text(name):
    english, chinese = (make.read(language, name) for language in make.LANGUAGES)
    assert make.code(english) == make.code(chinese)
    assert not any(CHINESE.search(text) for text in texts(english))
    assert all(CHINESE.search(text) for text in texts(chinese))


@pytest.mark.parametrize(("language", "name"), BOTH)
def test_links_in_the_text_lead_somewhere(language, name):
    links = [link for text in texts(make.read(language, name)) for link in LINK.findall(text)]
    assert links
    for link in links:
        assert link.startswith("http") or (ROOT / "notebooks" / language / link).exists(), link


@pytest.mark.parametrize(("language", "name"), BOTH)
def test_the_finished_notebook_is_its_source_with_outputs(language, name):
    notebook, source = made(language, name), make.read(language, name)
    nbformat.validate(notebook)
    source.cells[:0] = make.setup_cells(language, name)
    assert [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in source.cells
    ], f"make notebooks ONLY={name[0]}"
    first, *counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert first is None  # that of the cell that installs
    assert counts == list(range(1, len(counts) + 1))
    found = outputs(notebook)
    assert {output.output_type for output in found} <= {"stream", "display_data", "execute_result"}
    assert sum({"image/png", "image/jpeg"} & set(output.get("data", {})) != set() for output in found) >= 3


@pytest.mark.parametrize(("language", "name"), BOTH)
def test_the_finished_notebook_tells_nothing_of_when_and_where_it_was_made(language, name):
    path = ROOT / "notebooks" / language / f"{name}.ipynb"
    assert path.stat().st_size <= make.MOST
    notebook = made(language, name)
    assert not any(cell.metadata for cell in notebook.cells)
    for output in outputs(notebook):
        said = [output.get("text", "")] + [v for kind, v in output.get("data", {}).items() if kind.startswith("text/")]
        assert not [text for text in said if make.ABSOLUTE.search(text)]
        assert output.get("name") != "stderr", output.text


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_show_the_same(name):
    english, chinese = (outputs(made(language, name)) for language in make.LANGUAGES)
    assert english == chinese


def test_the_first_cell_does_nothing_where_rivals_is_installed_and_else_wants_a_wheel(tmp_path, monkeypatch):
    (cell,) = make.setup_cells("en", NAMES[0])
    monkeypatch.chdir(tmp_path)
    plain = re.sub(r"^( +)%pip (.*)$", r"\1commands.append(f'pip \2')", cell.source, flags=re.MULTILINE)
    commands = []
    exec(plain, {"commands": commands})
    assert not commands
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssertionError, match="upload the wheel"):
        exec(plain, {"commands": commands})
    (tmp_path / "rivals-0.1.0-py3-none-any.whl").touch()
    exec(plain, {"commands": commands})
    assert commands == ['pip install --quiet "rivals-0.1.0-py3-none-any.whl[demo]"']


@pytest.mark.parametrize("key", ["Repository", "source"])
def test_a_repository_gives_a_badge_and_is_installed_from(key, monkeypatch):
    address = "https://github.com/someone/something"
    assert make.repository({"urls": {key: f"{address}.git"}}) == address
    assert make.repository({"urls": {"Homepage": "https://example.org"}}) == make.repository({}) == ""
    monkeypatch.setattr(make, "repository", lambda project: address)
    badge, setup = make.setup_cells("zh", "1-small")
    assert badge.source.endswith("/github/someone/something/blob/main/notebooks/zh/1-small.ipynb)")
    assert f'%pip install --quiet "rivals[demo] @ git+{address}"' in setup.source


def test_the_third_runs(tmp_path, monkeypatch):
    """The others are longer, and run by ``make notebooks`` alone."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    plt.switch_backend("agg")
    (name,) = make.names("3")
    names = {"__name__": name}
    with torch.random.fork_rng():
        for cell in make.code(make.read("en", name)):
            if cell is not None:
                exec(compile(cell, name, "exec"), names)
    jsd_bounds = {value["discriminator"]: value for value in names["jsd_bounds"]}
    fresh = next(value for kind, value in jsd_bounds.items() if kind.startswith("fresh"))
    assert fresh["low"] > 0.3  # as the notebook concludes: the distributions hardly overlap
    assert abs(sum(names["bounds"][-50:]) / 50 - 0.111) < 0.01  # the JSD of two Gaussians at distance 1


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder of one small notebook in two languages."""
    monkeypatch.setattr(make, "HERE", tmp_path)
    home = "assert Path(tempfile.gettempdir()).samefile(Path.cwd())"  # so that nothing is left behind
    lines = ["# %%", "import tempfile", "from pathlib import Path", home, 'print("run in", Path.cwd())']
    code = "\n".join([*lines, "Path.cwd() / 'here'", ""])
    for language, text in (("en", "Two words."), ("zh", "两个词。")):
        (tmp_path / language).mkdir()
        (tmp_path / language / "1-small.py").write_text(f"# %% [markdown]\n# {text}\n\n{code}", encoding="utf-8")
    return tmp_path


def test_the_code_is_run_once_for_both(desk, capsys):
    make.main("1")
    assert "1-small: " in capsys.readouterr().out
    english, chinese = (nbformat.read(desk / each / "1-small.ipynb", as_version=4) for each in make.LANGUAGES)
    assert texts(english) == ["Two words."]
    assert texts(chinese) == ["两个词。"]
    assert outputs(english) == outputs(chinese)
    before = [(desk / each / "1-small.ipynb").read_bytes() for each in make.LANGUAGES]
    make.main(run_them=False)
    assert [(desk / each / "1-small.ipynb").read_bytes() for each in make.LANGUAGES] == before
    (desk / "zh" / "1-small.py").write_text((desk / "zh" / "1-small.py").read_text().replace("两个词", "两个字"))
    make.main(run_them=False)
    assert texts(nbformat.read(desk / "zh" / "1-small.ipynb", as_version=4)) == ["两个字。"]
    said, shown = outputs(english)
    assert re.fullmatch(r"run in tmp\w+\n", said.text)
    assert shown.data["text/plain"] == "PosixPath('here')"


def test_code_that_differs_is_refused(desk, capsys):
    path = desk / "zh" / "1-small.py"
    path.write_text(path.read_text().replace("here", "there"))
    with pytest.raises(SystemExit, match="the code cells of en and zh differ"):
        make.main()
    assert not list(desk.rglob("*.ipynb"))


def test_a_notebook_that_is_too_large_is_refused(desk, monkeypatch):
    monkeypatch.setattr(make, "MOST", 100)
    notebook = make.read("en", "1-small")
    with pytest.raises(SystemExit, match="100 are allowed"):
        make.write("en", "1-small", notebook)


def test_a_number_that_is_none_is_refused(desk):
    with pytest.raises(SystemExit, match="there is no notebook 7: take some of 1"):
        make.names("1,7")
