"""The Dockerfile, as far as it can be checked without Docker: what it copies, installs, runs, and as whom."""

import json
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from rivals.cli.commands import COMMANDS
from rivals.cli.parsing import parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
LINES = re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
STEPS = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in LINES if line.strip()]
ARGUMENTS = dict(text.split("=", 1) for kind, text in STEPS if kind == "ARG")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def of_kind(kind):
    return [text for found, text in STEPS if found == kind]


def sent(path):
    """Whether ``.dockerignore`` sends a path to the build: its last line that matches decides."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    answer = True
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        parents = [str(each) for each in (Path(path), *Path(path).parents)][:-1]
        if any(fnmatch(each, pattern) or ("**/" in rule and fnmatch(Path(each).name, pattern)) for each in parents):
            answer = rule.startswith("!")
    return answer


def test_what_is_copied_exists_and_is_sent_to_the_build():
    copied = [word for text in of_kind("COPY") for word in shlex.split(text)[:-1]]
    assert {"pyproject.toml", "src"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists() and sent(path), path
    assert PROJECT["readme"] in copied and set(PROJECT["license-files"]) <= set(copied)  # or it cannot be installed
    assert sent("src/rivals/cli/main.py") and sent("benchmarks/models/mnist-plain.json")
    for path in ("runs", ".git", ".venv/bin/python", "tests", "benchmarks/results", "src/rivals/__pycache__"):
        assert not sent(path), path


def test_extras_are_those_of_the_project_and_include_the_studio():
    extras = ARGUMENTS["EXTRAS"].split(",")
    assert {"studio", "demo"} <= set(extras) <= set(PROJECT["optional-dependencies"])


def test_python_is_new_enough():
    needed = tuple(map(int, PROJECT["requires-python"].removeprefix(">=").split(".")))
    assert tuple(map(int, re.search(r":(\d+\.\d+)", ARGUMENTS["PYTHON_IMAGE"])[1].split("."))) >= needed


def test_hosts_are_named_by_build_arguments_alone():
    assert [kind for kind, text in STEPS if "://" in text] == ["ARG"]
    assert not re.search(r"torch\S*==|cu1\d\d", TEXT)


def test_the_last_user_is_not_root_and_owns_the_volumes():
    kinds = [kind for kind, _ in STEPS]
    assert of_kind("USER") == ["rivals"] and kinds.index("USER") > max(i for i, k in enumerate(kinds) if k == "RUN")
    making = next(text for text in of_kind("RUN") if "useradd" in text)
    for volume in json.loads(of_kind("VOLUME")[0]):
        assert volume in making and "chown -R rivals /workspace" in making


def test_it_serves_the_studio_and_takes_commands():
    assert json.loads(of_kind("ENTRYPOINT")[0]) == ["rivals"] and "rivals" in PROJECT["scripts"]
    command, *words = json.loads(of_kind("CMD")[0])
    given = parse(COMMANDS[command].flags(words), command, words).settings
    assert (command, given["host"], given["port"], given["open"]) == ("studio", "0.0.0.0", 7860, False)
    assert of_kind("EXPOSE") == ["7860"]


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_build_arguments_are_documented_with_their_defaults(name):
    page = (ROOT / "docs" / "container.md").read_text()
    assert f"| `{name}` | `{ARGUMENTS[name]}` |" in page
