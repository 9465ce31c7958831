"""What a user gets wrong is one line and exit status 2, and nothing is lost."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rivals
from helpers.commands import TINY, assert_refused
from rivals import UserError
from rivals.api import data_pack

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_help_of_every_command(run_rivals):
    for words in ([], ["train"], ["sample"], ["report"], ["demo"], ["data"], ["data", "ls"], ["data", "pack"]):
        status, out, err = run_rivals(*words, "--help")
        assert status == 0, err
        assert "usage: rivals" in out


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "rivals", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "usage: rivals" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="a pipe's reader that has left is no error elsewhere")
@pytest.mark.parametrize("words", [["data", "ls"], ["train", "--help"], ["--version"]], ids=" ".join)
def test_a_reader_that_has_seen_enough_is_no_error(words):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rivals", *words], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes a stream")
def test_no_standard_output_at_all_is_no_error():
    done = subprocess.run(
        ["sh", "-c", '"$0" -m rivals --version >&-', sys.executable], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_neither_help_nor_import_loads_heavy_packages():
    code = (
        "import sys, rivals, rivals.cli.main\n"
        "try: rivals.cli.main.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'numpy', 'torch', 'torchvision', 'matplotlib', 'scipy'} & sys.modules.keys() else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "train"]),
        (["train", "cifar-10"], ["unknown data set 'cifar-10'", "cifar10"]),
        (["train", "--recipe", "dcgna"], ["unknown recipe 'dcgna'", "dcgan"]),
        (["train", "--recpie", "dcgan"], ["--recpie", "did you mean --recipe"]),
        (["train", "--batch-size", "many"], ["--batch-size", "many"]),
        (["train", "--loss", "hing"], ["unknown loss 'hing'", "hinge"]),
        (["train", "--net", "mpl"], ["unknown net 'mpl'", "mlp"]),
        (["train", "--until", "soon"], ["'soon'", "2M images"]),
        (["train", "--until", "-5 epochs"], ["'-5 epochs'"]),
        (["train", "--checkpoint-every", "often"], ["'often'"]),
        (["train", "--generator-lr", "-1"], ["-1"]),
        (["train", "--discriminator-lr", "1e9"], ["learning rate"]),
        (["train", "--device", "toaster"], ["device 'toaster'", "cpu"]),
        (["train", "--size", "7"], ["7"]),
        (["train", "--r1", "1e400"], ["1e400"]),
        (["train", "~nosuchuser/photos"], ["~nosuchuser/photos"]),
        (["train", "n" * 300], ["nnn"]),
        (["sample", "n" * 300], ["nnn"]),
        (["train", "--resume"], ["--out RUN"]),
        (["train", "--resume", "--out", "nowhere"], ["'nowhere' is not a run"]),
        (["train", "nowhere/photos"], ["nowhere/photos"]),
        (["sample", "nowhere"], ["no network at 'nowhere'"]),
        (["sample"], ["RUN"]),
        (["report", "nowhere"], ["'nowhere' is not a run"]),
        (["report"], ["no run was named"]),
        (["data", "sl"], ["unknown command 'data sl'", "data ls"]),
        (["demo", "--until", "7"], ["'7'"]),
    ],
)
def test_user_errors_are_reported_in_one_line(run_rivals, words, parts, tmp_path):
    assert_refused(run_rivals(*words), *parts)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_run_is_never_written_over(run_rivals, trained, photos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert_refused(run_rivals("train", photos, "--out", copy), str(copy), "exists already", "--resume")
    assert_refused(run_rivals("train", "--resume", "--out", copy, "--batch-size", "16"), "another batch", "8", "16")
    assert_refused(run_rivals("train", "--resume", "--out", copy, "--recipe", "r3"), "another recipe")
    assert_refused(run_rivals("train", "mnist5k", "--resume", "--out", copy), "'mnist5k' are not those")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    assert_refused(run_rivals("train", photos, "--out", tmp_path / "other"), "not empty")
    (tmp_path / "file").write_text("")
    assert_refused(run_rivals("train", photos, "--out", tmp_path / "file" / "run"), "file")
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_pictures_are_never_written_over(run_rivals, trained):
    Path("mine.png").write_bytes(b"mine")
    assert_refused(run_rivals("sample", trained, "--grid", "mine.png"), "'mine.png' exists already")
    Path("full").mkdir()
    (Path("full") / "mine").write_text("")
    assert_refused(run_rivals("sample", trained, "--folder", "full"), "full")
    assert Path("mine.png").read_bytes() == b"mine"
    assert_refused(run_rivals("sample", trained, "-n", 0, "--grid", "x.png"), "0")
    assert_refused(run_rivals("sample", trained, "--truncation", 7, "--grid", "x.png"), "7")
    assert_refused(run_rivals("sample", trained, "--label", "cats", "--grid", "x.png"), "is unconditional")
    assert not Path("x.png").exists()


def test_images_that_changed_since_are_refused_on_resume(run_rivals, photos, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(photos, mine)
    assert run_rivals("train", mine, "--out", "r", "--until", "1 steps", "--quiet", *TINY)[0] == 0
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(mine / "cats" / "1.png")
    assert_refused(
        run_rivals("train", "--resume", "--out", "r", "--until", "2 steps"), "are not those that the run began with"
    )


def test_folders_that_are_no_data(run_rivals, tmp_path, photos):
    (tmp_path / "empty").mkdir()
    assert_refused(run_rivals("train", "./empty"), "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    assert_refused(run_rivals("train", "./texts"), "texts")
    one = tmp_path / "one"
    shutil.copytree(photos / "cats", one / "cats")
    assert_refused(run_rivals("train", one, "--conditional"), "class")
    mixed = tmp_path / "mixed"
    shutil.copytree(photos / "cats", mixed)
    Image.new("RGB", (20, 20)).save(mixed / "big.png")
    assert_refused(run_rivals("train", mixed), "--size")
    wide = tmp_path / "wide"
    wide.mkdir()
    Image.new("RGB", (20, 16)).save(wide / "wide.png")
    assert_refused(run_rivals("train", wide, "--size", "16"), "--crop")


def test_broken_images_stop_the_run_or_are_skipped_and_counted(run_rivals, tmp_path, photos):
    bad = tmp_path / "bad"
    shutil.copytree(photos, bad)
    jpeg = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(jpeg, "jpeg")
    (bad / "cats" / "half.jpg").write_bytes(jpeg.getvalue()[:200])
    assert_refused(run_rivals("train", bad, "--out", "r", *TINY), "half.jpg", "--skip-bad")
    assert not Path("r").exists()
    status, _, err = run_rivals("train", bad, "--out", "r", "--until", "1 steps", "--skip-bad", *TINY)
    assert status == 0
    assert "skipped 1 of the 31 images" in err


def test_zips_that_are_broken_or_reach_outside(run_rivals, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        evil.writestr("../outside.png", b"x")
    assert_refused(run_rivals("train", "evil.zip"), "../outside.png")
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.png", b"x" * 1000)
    (tmp_path / "half.zip").write_bytes(whole.read_bytes()[:500])
    assert_refused(run_rivals("train", "half.zip"), "half.zip")


def test_no_permission(run_rivals, photos, tmp_path, monkeypatch):
    """As root every folder can be written, so the refusal is made by hand at the one place that writes."""
    from rivals.base.run_folder import Run

    def deny(self, content):
        from rivals.base.files import explain_os_errors

        with explain_os_errors(self.folder):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Run, "info", property(Run.info.fget, deny))
    assert_refused(run_rivals("train", photos, "--out", "r", *TINY), "no permission")


def test_a_run_of_a_newer_version_is_refused(run_rivals, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    about = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**about, "format": 99}))
    assert_refused(run_rivals("report", copy), "newer version")
    (copy / "run.json").write_text('{"format": 1}')
    assert_refused(run_rivals("train", "--resume", "--out", copy), "not a run of 'rivals train'")
    (copy / "run.json").write_text("{")
    assert_refused(run_rivals("train", "--resume", "--out", copy), "no JSON at line 1")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "--batch-size", "many"], ["--batch-size 'many' is not a whole number: write one such as 8"]),
        (["train", "--score-seconds", "abc"], ["--score-seconds 'abc' is not a number: write one such as 0.5"]),
        (["classify", "--widths", "4", "x"], ["--widths 'x' is not a whole number"]),
        (["attack", "a", "b", "--mean", "1e999"], ["--mean '1e999' cannot be used", "64 bits"]),
        (["certify", "a", "b", "--sigma", "nan"], ["--sigma 'nan' cannot be used"]),
        (["sample", "r", "-n", "9" * 5000], ["-n '9999", "cannot be used", "64 bits"]),
        (["harden", "--seed", str(2**64)], ["--seed '18446744073709551616'", "64 bits"]),
    ],
)
def test_numbers_are_refused_in_our_own_words(run_rivals, words, parts):
    line = assert_refused(run_rivals(*words), *parts)
    assert len(line) < 200
    assert "invalid literal" not in line


@pytest.mark.parametrize("name", ["x\ud800", "\ud800", "a\0b"])
def test_words_that_are_no_text_are_refused(run_rivals, name):
    for words in (["train", name], ["sample", "r", "--grid", name], ["report", name], ["export", "r", f"--out={name}"]):
        assert_refused(run_rivals(*words), "is not text")


def test_names_are_printed_without_control_characters(run_rivals, photos, tmp_path):
    name = "\x1b[2Jred\nrivals: done"
    assert_refused(run_rivals("report", name), "'\\x1b[2Jred\\nrivals: done' is not a run")
    assert_refused(run_rivals("train", f"./{name}"), "\\x1b[2Jred\\nrivals: done")
    (tmp_path / name).mkdir()
    for kind in ("cats", "dogs\x9b31m"):
        shutil.copytree(photos / "cats", tmp_path / name / kind)
    (tmp_path / name / "cats" / "a\nb.txt").write_text("")
    status, out, err = run_rivals("data", "pack", f"./{name}", "out.zip")
    assert (status, len(err.splitlines())) == (0, 1)
    assert "'cats/a\\nb.txt'" in err
    assert "cats; dogs\\x9b31m" in out


@pytest.mark.parametrize(
    "words",
    [
        ["data", "pack", "~nobody-here/x", "x.zip"],
        ["push", "r", "~nobody-here/x"],
        ["pull", "~nobody-here/x"],
        ["attack", "~nobody-here/x", "mnist5k"],
        ["score", "~nobody-here/x", "mnist5k"],
        ["classify", "~nobody-here/x"],
        ["classify", "mnist5k", "--weights", "~nobody-here/x"],
    ],
)
def test_users_that_the_machine_does_not_know(run_rivals, trained, words):
    words = [str(trained) if word == "r" else word for word in words]
    assert_refused(run_rivals(*words), "~nobody-here/x")


def test_a_device_that_computes_shapes_alone_is_none(run_rivals, trained):
    assert_refused(run_rivals("sample", trained, "--grid", "x.png", "--device", "meta"), "device 'meta' cannot be used")


def test_holding_out_needs_enough_images(run_rivals, photos):
    assert_refused(run_rivals("train", photos, "--hold-out", "15", "--out", "r", *TINY), "needs 100 images", "are 30")


@pytest.mark.parametrize(
    "words",
    [
        ["classify", ""],
        ["train", " "],
        ["sample", ""],
        ["attack", "m", ""],
        ["report", ""],
        ["train", "--out", ""],
        ["train", "--out="],
        ["harden", "mnist5k", "--against", ""],
    ],
)
def test_empty_words_are_refused(run_rivals, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(run_rivals(*words), "is empty")
    assert not list(tmp_path.iterdir())


def test_no_data_are_not_the_default_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for function in (rivals.train, rivals.classify, data_pack):
        with pytest.raises(UserError, match="the name '' is empty"):
            function("", *(["x.zip"] if function is data_pack else []))


def test_counts_beyond_any_use_are_refused(run_rivals, trained):
    for words in (["sample", trained, "-n", 2**31], ["attack", "m", "d", "--eot", 2**31]):
        assert_refused(run_rivals(*words), f"{2**31} cannot work: take 1 to")
    for words in (["certify", "m", "d", "--samples", 2**40], ["score", trained, "--equilibrium", "--steps", 2**40]):
        assert_refused(run_rivals(*words), f"{2**40} cannot work: take 1 to")


@pytest.mark.parametrize(
    ("command", "part", "name"),
    [("train", "config", "loss"), ("train", "data_options", "crop"), ("classify", "config", "lr")],
)
def test_a_setting_that_is_lost_is_no_default_on_resume(run_rivals, trained, classified, tmp_path, command, part, name):
    shutil.copytree({"train": trained, "classify": classified}[command], tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    del info[part][name]
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    assert_refused(run_rivals(command, "--resume", "--out", "run"), f"settings lack '{name}'")


def test_changed_settings_of_an_attack_are_refused_on_resume(run_rivals, classified, photos, tmp_path):
    words = ("attack", classified, photos, "--attack", "fgsm", "--no-alarms", "-n", "2", "--quiet", "--out", "run")
    assert run_rivals(*words).status == 0
    path = tmp_path / "run" / "run.json"
    info = json.loads(path.read_text())
    lost = {name: value for name, value in info["config"].items() if name != "attack"}
    for config, part in (
        (lost, "settings lack 'attack'"),
        ({**info["config"], "classes": "["}, "classes"),
        ({**info["config"], "classes": "no-such-file"}, "no-such-file"),
    ):
        path.write_text(json.dumps({**info, "config": config}))
        assert_refused(run_rivals("attack", "--resume", "--out", "run"), part)
