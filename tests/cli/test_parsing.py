"""Flags and ``--config``: what reaches the function, and one line for everything that is wrong."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from rivals import recipes
from rivals.base.errors import UserError
from rivals.base.schedules import Schedule
from rivals.base.size import Size
from rivals.cli.commands import COMMANDS, split_name
from rivals.cli.parsing import Call, field_docs, long_flags, parse


def call(*words: object) -> Call:
    name, rest = split_name([str(word) for word in words])
    return parse(COMMANDS[name].flags(rest), name, rest)


def settings(*words: object) -> dict:
    return dict(call(*words).settings)


def test_only_what_was_set_reaches_the_function():
    assert settings("train") == {}
    assert settings("harden", "mnist", "--eps", "8/255") == {"data": "mnist", "eps": "8/255"}


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        (("--flip",), {"flip": True}),
        (("--no-flip",), {"flip": False}),
        (("--latent-dim", "64"), {"latent_dim": 64}),
        (("--generator-widths", "8", "16"), {"generator_widths": (8, 16)}),
        (("--ema", "20k"), {"ema": Schedule(20_000.0, 20_000.0)}),
        (("--dropout", "0.3"), {"dropout": 0.3}),
        (("--size", "16"), {"size": Size(16, 16)}),
        (("--size", "24x16"), {"size": Size(16, 24)}),
        (("--quiet",), {"quiet": True}),
        (("--until", "20 epochs"), {"until": "20 epochs"}),
    ],
)
def test_a_flag_counts_as_set_even_with_its_default_value(flag, setting):
    """With the recipe ``auto``, a value that was set is kept even where it equals the default."""
    assert settings("train", *flag) == setting


def test_several_positional_arguments_and_aliases():
    assert call("report", "a", "b").arguments == ("a", "b")
    assert settings("attack", "net", "data", "-n", "3") == {"model": "net", "data": "data", "n": 3}


def test_repeatable_flag_comes_from_the_words_or_the_file(tmp_path):
    file = tmp_path / "studio.json"
    file.write_text(json.dumps({"data": ["a", "b"], "allow-host": ["x.test"]}))
    assert settings("studio") == {}
    assert settings("studio", "--data", "a b", "--data", "c") == {"data": ("a b", "c")}
    assert settings("studio", "--data", "c", "--config", file) == {"data": ("c",), "allow_host": ["x.test"]}
    for wrong in ("a", [1]):
        file.write_text(json.dumps({"data": wrong}))
        with pytest.raises(UserError, match="give a list of texts"):
            settings("studio", "--config", file)


def test_json_is_a_flag_of_every_command():
    for name in COMMANDS:
        assert "--json" in long_flags(COMMANDS[name].flags([])), name
    assert call("doctor", "--json").as_json and not call("doctor").as_json


def test_the_help_describes_every_field(capsys):
    options = (recipes.Config, recipes.HardenConfig, recipes.AttackConfig, recipes.CertifyConfig, recipes.DataOptions)
    options += (recipes.GanRunOptions, recipes.ScoreConfig, recipes.SampleConfig, recipes.ExploreConfig)
    options += (recipes.TranslateConfig, recipes.TranslateRunOptions, recipes.ApplyConfig)
    for kind in options:
        assert field_docs(kind).keys() == {field.name for field in dataclasses.fields(kind)}, kind
    with pytest.raises(SystemExit) as left:
        call("harden", "--recipe", "resnet", "--help")
    assert left.value.code == 0
    page = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Weight of the KL divergence" in page
    assert "(default: resnet)" in page  # the values of the recipe that is named


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_gives_settings_and_flags_take_precedence(tmp_path: Path, suffix: str):
    path = tmp_path / f"harden{suffix}"
    values = {"data": "mnist", "recipe": "resnet", "eps": "8/255", "label-smoothing": 0.1, "widths": [8, 16], "seed": 3}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    path.write_text(json.dumps(values) if suffix == ".json" else lines)
    given = settings("harden", "--config", path, "--eps", "4/255")
    assert given == {
        "data": "mnist",
        "recipe": "resnet",
        "eps": "4/255",
        "label_smoothing": 0.1,
        "widths": [8, 16],
        "seed": 3,
    }
    assert settings("harden", "fashion-mnist", "--config", path)["data"] == "fashion-mnist"


def test_a_file_gives_a_positional_argument_that_has_a_default(tmp_path: Path):
    path = tmp_path / "explore.toml"
    path.write_text('what = "sefa"')
    assert settings("explore", "r", "--config", path) == {"run": "r", "what": "sefa"}
    assert settings("explore", "r", "walk", "--config", path) == {"run": "r", "what": "walk"}
    assert settings("explore", "r") == {"run": "r"}
    assert settings("studio", "runs") == {"runs": Path("runs")}


@pytest.mark.parametrize(
    ("words", "line", "right"),
    [
        (["train"], 'resume = "auto"', True),
        (["train"], "resume = true", True),
        (["train"], 'resume = "yes"', "give bool or 'auto'"),
        (["data", "prune"], "days = 30", True),
        (["data", "prune"], "days = true", "give float"),
        (["export", "r"], "out = 5", "give str"),
        (["export", "r"], 'format = "onx"', "give 'onnx' or 'safetensors'"),
        (["sample", "r"], "grid = 5", "give str"),
        (["sample", "r"], 'grid = "a.png"', True),
        (["explore", "r"], "what = 5", "give 'walk' or 'classes'"),
    ],
)
def test_a_value_of_a_file_has_a_type_that_the_setting_takes(tmp_path: Path, words, line, right):
    path = tmp_path / "a.toml"
    path.write_text(line)
    if right is True:
        assert line.partition(" ")[0] in settings(*words, "--config", path)
        return
    with pytest.raises(UserError, match=f"{re.escape(repr(str(path)))} is of the wrong type: {right}"):
        settings(*words, "--config", path)


def test_the_settings_of_an_earlier_run_are_taken_from_its_run_json(tmp_path: Path):
    config = recipes.HardenConfig(eps="0.2", steps=3, until="2 epochs")
    run = {"command": "harden", "recipe": "cnn", "seed": 5, "config": config.written(), "data": {"n": 3}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    given = settings("harden", "mnist", "--config", tmp_path / "run.json")
    assert (given.pop("data"), given.pop("recipe"), given.pop("seed")) == ("mnist", "cnn", 5)
    assert recipes.HardenConfig().changed(**given) == config


def test_the_settings_of_a_run_without_a_recipe_are_taken_too(tmp_path: Path):
    config = recipes.TranslateConfig(scale=2, until="2 epochs", widths=(8, 16))
    run = {"command": "translate", "recipe": "upscale", "seed": 5, "config": config.written()}
    (tmp_path / "run.json").write_text(json.dumps(run))
    given = settings("translate", "mnist", "--config", tmp_path / "run.json")
    assert (given.pop("data"), given.pop("seed")) == ("mnist", 5)
    assert recipes.TranslateConfig().changed(**given) == config


@pytest.mark.parametrize(
    ("content", "name", "parts"),
    [
        ("label_smoothin = 0.1", "a.toml", ["'label_smoothin'", "did you mean label_smoothing"]),
        ('{"epss": "0.1"}', "a.json", ["'epss'", "did you mean eps"]),
        ('seed = "three"', "a.toml", ["seed 'three'", "give int"]),
        ("eps = ", "a.toml", ["not valid TOML"]),
        ("{", "a.json", ["no JSON at line 1"]),
        ("[" * 100_000, "a.json", ["nested too deep"]),
        ('{"seed": 1' + "0" * 5000 + "}", "a.json", ["thousands of digits"]),
        ('{"data": "a\\u0000b"}', "a.json", ["data has text with a null character"]),
        ('{"command": "train", "config": 3}', "run.json", ["config is 3, not an object"]),
        ("[1]", "a.json", ["holds a list", "table of settings"]),
        ("\udcff", "a.toml", ["not valid TOML"]),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, name: str, parts: list[str]):
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as error:
        call("harden", "--config", tmp_path / name)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in parts), error.value


def test_a_missing_file_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="there is no configuration"):
        call("train", "--config", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train", "--recpie", "r3"], "did you mean --recipe"),
        (["train", "--batch-size", "many"], "--batch-size"),
        (["attack", "--eot"], "--eot"),
        (["train", "--recipe"], "--recipe"),
        (["trian"], "did you mean train"),
        (["data", "sl"], "did you mean data ls"),
        (["completion", "fsh"], "did you mean fish"),
    ],
)
def test_a_bad_word_is_one_line(words: list[str], part: str):
    with pytest.raises(UserError) as error:
        parsed = call(*words)
        parsed.function(*parsed.arguments, **parsed.settings)
    assert part in str(error.value) and "\n" not in str(error.value)
