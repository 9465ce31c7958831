"""Scores during training: the best state is kept, through kills and resumes."""

import json
import math

import pytest
import torch

import rivals
from helpers.small_networks import small_net
from rivals import api
from rivals.api.scoring import feature_passes
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.extractors.classifier_features import open_classifier
from rivals.metrics.feature_set import frechet_of_moments


@pytest.fixture
def quick_eyes(monkeypatch):
    """Scores during training by a small extractor, in no time."""
    monkeypatch.setattr(
        feature_passes, "find_extractor", lambda name, device: open_classifier(small_net(), size=16, channels=1)
    )


PLAY = {
    "net": "mlp",
    "generator_widths": (8,),
    "discriminator_widths": (8,),
    "latent_dim": 4,
    "size": 16,
    "quiet": True,
}
PLAY |= {"sample_grid": 4, "sample_every": "9 steps"}


def live(run):
    return {r["step"]: r["score/FD-classifier"] for r in run.records() if "score/FD-classifier" in r}


def test_scores_during_training_keep_the_best_state(quick_eyes, tmp_path):
    run = rivals.train(
        "mnist5k", **PLAY, until="12 steps", score_every="3 steps", score_seconds=0.5, out=tmp_path / "a"
    )
    values = live(run)
    assert list(values) == [0, 3, 6, 9, 12]
    protocol = run.info["score_protocol"]
    assert protocol["metric"] == "FD-classifier" and protocol["n_real"] >= 4 * 64 and protocol["seconds"] == 0.5
    best = min((step for step in values if step), key=lambda step: values[step])
    assert run.result()["best"] == {"FD-classifier": values[best], "images": best * 64}
    assert json.loads((tmp_path / "a" / "generator.json").read_text())["step"] == best
    # The state that is kept is the one that was scored so.
    data = rivals.load_images("mnist5k", size=16)
    real = feature_passes.of_set(data, protocol["n_real"])
    eyes = open_classifier(small_net(), size=16, channels=1)
    quietly = {"logits": False, "what": "", "show": lambda what, done, n: None}
    fake = feature_passes.of_generator(
        run.generator, protocol["n_fake"], protocol["seed"], "", rivals.load_images("mnist5k", size=16)
    )
    again = frechet_of_moments(
        feature_passes.extract_features(eyes, real, **quietly).moments,
        feature_passes.extract_features(eyes, fake, **quietly).moments,
    )
    assert again == pytest.approx(values[best], rel=1e-4)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Distance to the data" in page and "Scores during training." in page


def test_a_run_that_is_scored_resumes_to_the_same_scores_and_the_same_best(quick_eyes, tmp_path, monkeypatch):
    how = {**PLAY, "score_every": "3 steps", "score_seconds": 0.5, "checkpoint_every": "4 steps"}
    # The one thing that a clock decides; a quotient clear of whole numbers, which rounding would carry over.
    monkeypatch.setattr(api.training.fid_callback.FidCallback, "_cost", lambda self: 0.5 / 700.5)
    whole = rivals.train("mnist5k", **how, until="14 steps", out=tmp_path / "whole")
    assert whole.info["score_protocol"]["n_fake"] == 700
    with monkeypatch.context() as patch:
        patch.setattr(Run, "append", killed_after(8, Run.append))
        with pytest.raises(Killed):
            rivals.train("mnist5k", **how, until="14 steps", out=tmp_path / "cut")
    monkeypatch.setattr(
        api.training.fid_callback.FidCallback, "_cost", lambda self: pytest.fail("it was measured in the first part")
    )
    cut = rivals.train(out=tmp_path / "cut", resume=True, quiet=True)
    assert live(cut) == live(whole) and cut.result()["best"] == whole.result()["best"]
    assert (cut.folder / "generator.safetensors").read_bytes() == (whole.folder / "generator.safetensors").read_bytes()
    assert cut.info["run_options"]["score_every"] == "3 steps"


class Killed(BaseException):
    pass


def killed_after(step, append):
    """A journal that breaks once a record of a later step comes, as a kill would have it."""

    def write(self, records):
        records = list(records)
        if any(record["step"] > step for record in records):
            raise Killed
        append(self, records)

    return write


def test_the_budget_needs_scores_and_sense(tmp_path):
    with pytest.raises(UserError, match="add --score-every"):
        rivals.train("mnist5k", **PLAY, until="1 steps", score_seconds=3.0, out=tmp_path / "a")
    with pytest.raises(UserError, match="--score-seconds -1 cannot work"):
        rivals.train("mnist5k", **PLAY, until="1 steps", score_every="1 steps", score_seconds=-1.0, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_best_is_forgotten_with_its_future(tmp_path):
    from types import SimpleNamespace

    from rivals.game.best_checkpoint import BestCheckpoint
    from rivals.game.callbacks import Progress
    from rivals.game.checkpoint import Checkpoints

    game = SimpleNamespace(lr_scale=1.0, state=lambda: {"w": torch.ones(1)})
    best = BestCheckpoint(game, Checkpoints(tmp_path), "score/x")
    for step, score in ((0, 1.0), (5, 9.0), (10, 7.0), (15, 8.0)):
        progress = Progress(step, step, 0.0, 0.0)
        assert list(best.on_record(progress.record(**{"score/x": score}), progress)) == []
    assert best.step == 10 and [path.stem for path in best.checkpoints.paths()] == [f"{5:012d}", f"{10:012d}"]
    best.on_restore([{"step": 0, "score/x": 1.0}, {"step": 5, "score/x": 9.0}], Progress(0, 0, 0.0, 0.0))
    assert best.step == 5 and [path.stem for path in best.checkpoints.paths()] == [f"{5:012d}"]
    best.on_restore([], Progress(0, 0, 0.0, 0.0))
    assert best.score == math.inf and best.checkpoints.paths() == []


def test_the_best_state_at_a_checkpoint_outlives_better_ones_after_it(tmp_path):
    from types import SimpleNamespace

    from rivals.game.best_checkpoint import BestCheckpoint
    from rivals.game.callbacks import Progress
    from rivals.game.checkpoint import Checkpoints

    game = SimpleNamespace(lr_scale=1.0, state=lambda: {"w": torch.ones(1)})
    own = Checkpoints(tmp_path / "checkpoints")
    best = BestCheckpoint(game, Checkpoints(tmp_path / "best", others=own), "score/x")
    past = []
    for step in range(1, 10):
        progress = Progress(step, step, 0.0, 0.0)
        past.append(progress.record(**{"score/x": -step}))
        best.on_record(past[-1], progress)
        if step == 5:
            own.save(step, {"w": torch.ones(1)}, {})
    assert [int(path.stem) for path in best.checkpoints.paths()] == [5, 8, 9]
    best.on_restore(past[:5], Progress(0, 0, 0.0, 0.0))
    assert best.step == 5 and best.checkpoints.load()[1]["step"] == 5
