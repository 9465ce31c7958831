"""Adversarial training end to end: every method runs and resumes, the best state is kept, collapse is rolled back."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import assert_killed_run_resumes, goes_on
from rivals import Linf, build_generator
from rivals.api.common.network_io import save_network
from rivals.api.hub import results_of
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.data.generated_batches import GeneratedBatches
from rivals.game.callbacks import Every, Progress
from rivals.game.checkpoint import Checkpoints
from rivals.game.classifier_step import ClassifierStep
from rivals.game.game import Game, Turn
from rivals.game.loop import Saving, play
from rivals.game.metric_buffer import NonFinite
from rivals.game.player import Player, adam
from rivals.game.robust_checkpoint import CatastrophicOverfitting, RobustCheckpoint
from rivals.losses.classification import cross_entropy
from rivals.recipes import HARDENING, METHODS, HardenConfig

TINY = {"widths": (4, 8), "batch_size": 16, "quiet": True, "device": "cpu"}


def picture(folder, name, count, make):
    (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(len(name))
    for number in range(count):
        pixels = (make() + noise.normal(0, 12, (8, 8))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """Stripes that lie and stripes that stand, strong enough to be told apart under attack."""
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    bars = np.where(np.arange(8)[:, None] % 4 < 2, 220, 30) * np.ones(8)
    picture(tmp_path / "stripes", "lie", 60, lambda: bars)
    picture(tmp_path / "stripes", "stand", 60, lambda: bars.T)
    return str(tmp_path / "stripes")


@pytest.fixture
def stripes_and_brightness(tmp_path, monkeypatch):
    """Images whose brightness always tells the class but is lost under attack, and whose stripes mostly tell it.

    Training that does not meet the attack relies on the brightness.
    """
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    lying = np.where(np.arange(8)[:, None] % 4 < 2, 70, -70) * np.ones(8)
    for name, shade, bars in (("lie", -12, lying), ("stand", 12, lying.T)):
        others = iter(range(90))
        picture(tmp_path / "mixed", name, 90, lambda: 128 + shade + (bars if next(others) >= 9 else bars.T))  # noqa: B023
    return str(tmp_path / "mixed")


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.kappa is None])
def test_every_method_that_meets_the_attack_gives_a_robust_classifier(stripes_and_brightness, method):
    data = stripes_and_brightness
    run = rivals.harden(data, Linf(0.1), method=method, until="10 epochs", lr=1.5e-2, out="runs/hard", **TINY)
    result = run.result()
    assert result["state"] == "finished"
    assert result["accuracy/test"] > 0.7
    if method == "noise":
        # The state that is saved may be an early one, which had not learned yet to trust what the attack takes away.
        assert [record["accuracy/pgd"] for record in run.records() if "accuracy/pgd" in record][-1] < 0.4
    elif method != "augment":  # whose images are in no ball
        assert result["accuracy/pgd"] > 0.5
    about = run.info
    assert about["hardened"] == {"norm": "linf", "eps": 0.1, "method": method}
    assert json.loads((run.folder / "classifier.json").read_text())["hardened"] == about["hardened"]
    assert about["config"]["eps"] == "0.1"


def test_the_result_is_of_the_state_that_was_saved(stripes, tmp_path):
    run = rivals.harden(stripes, Linf(0.1), method="fgsm", until="10 epochs", lr=1.5e-2, out="runs/hard", **TINY)
    records = list(run.records())
    first, *_, last = (record for record in records if "accuracy/pgd" in record)
    file = run.folder / "classifier.json"
    about = json.loads(file.read_text())
    assert about["step"] in [record["step"] for record in records if "accuracy/pgd" in record]
    for saved in (first, last):  # whichever was the best
        file.write_text(json.dumps({**about, "step": saved["step"]}))
        at = [record for record in records if record["step"] == saved["step"]]
        result, (tested,) = run.result(), [record for record in at if "accuracy/test" in record]
        assert {key: result[key] for key in ("accuracy/pgd", "accuracy/held_out")}.items() <= saved.items()
        assert (result["accuracy/test"], result["n_test"]) == (tested["accuracy/test"], tested["n_test"])
        assert dict(results_of(run.folder))["accuracy"] == tested["accuracy/test"]
    assert first["accuracy/pgd"] < last["accuracy/pgd"]


def test_epochs_with_extra_images_are_as_long_as_those_of_the_data(stripes, tmp_path):
    given = {"extra": stripes, "extra_share": 0.5, "until": "4 epochs", "out": "runs/extra"}
    run = rivals.harden(stripes, Linf(0.1), method="fgsm", **given, **TINY)
    assert run.info["epochs"] == pytest.approx(4, abs=0.1)
    assert (run.info["data"]["n"], run.info["data"]["n_train"], run.info["images"]) == (108, 98, 400)
    assert f">{400 / 98:.4g} epochs<" in run.report.read_text()


def test_a_step_of_free_training_is_a_batch_with_its_replays(stripes, tmp_path):
    run = rivals.harden(stripes, Linf(0.1), method="free", replays=3, until="5 steps", out="runs/free", **TINY)
    assert (run.info["step"], run.info["images"]) == (5, 5 * 3 * TINY["batch_size"])


def test_awp_extra_images_weights_and_eps_warmup_go_together(stripes, tmp_path):
    rivals.classify(stripes, until="3 epochs", out="runs/plain", **TINY)
    run = rivals.harden(
        stripes,
        Linf(0.1),
        method="mart",
        awp=0.005,
        ema="200",
        extra=stripes,
        extra_share=0.25,
        weights="runs/plain",
        eps_warmup=0.5,
        until="6 epochs",
        out="runs/all",
        **TINY,
    )
    assert run.result()["accuracy/pgd"] > 0.8


def test_a_generator_makes_extra_images_as_they_are_needed_and_a_resumed_run_gets_the_same(
    stripes, tmp_path, monkeypatch
):
    classes = rivals.load_images(stripes, on_note=lambda note: None).classes
    net = build_generator("mlp", size=8, channels=1, classes=len(classes), latent_dim=4, widths=(8,))
    save_network(net, tmp_path / "extra.safetensors", {"classes": classes[::-1]})
    settings = {"method": "fgsm", "extra": str(tmp_path / "extra.safetensors"), "micro_batches": 2, **TINY}
    whole = rivals.harden(stripes, Linf(0.1), until="6 steps", out="runs/whole", **settings)
    draw = GeneratedBatches.draw

    def stopping(batches, index, *place):
        if index == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(batches, index, *place)

    with monkeypatch.context() as patch, pytest.raises(rivals.Interrupted):
        patch.setattr(GeneratedBatches, "draw", stopping)
        rivals.harden(stripes, Linf(0.1), until="6 steps", out="runs/parts", **settings)
    with goes_on(tmp_path / "runs" / "parts"):
        parts = rivals.harden(out="runs/parts", resume=True, quiet=True)
    for name, weight in whole.classifier.state_dict().items():
        assert torch.equal(weight, parts.classifier.state_dict()[name]), name
    for wrong, message in (
        ({"size": 16}, "are 1x16x16 and the run's 1x8x8: give images of the same size"),
        ({"classes": 0}, "is not a conditional generator, which extra images need: train it with --conditional"),
    ):
        shape = {"size": 8, "classes": len(classes), **wrong}
        save_network(
            build_generator("mlp", channels=1, latent_dim=4, widths=(8,), **shape), tmp_path / "w.safetensors", {}
        )
        with pytest.raises(rivals.UserError, match=message):
            rivals.harden(stripes, Linf(0.1), out="runs/no", **{**settings, "extra": str(tmp_path / "w.safetensors")})


def test_a_teacher_labels_the_images_of_a_generator_without_classes(stripes, tmp_path):
    rivals.classify(stripes, until="3 epochs", out="runs/teacher", **TINY)
    net = build_generator("mlp", size=8, channels=1, latent_dim=4, widths=(8,))
    save_network(net, tmp_path / "any.safetensors", {})
    settings = {"extra": str(tmp_path / "any.safetensors"), "extra_teacher": "runs/teacher", "extra_keep": 0.5}
    run = rivals.harden(stripes, Linf(0.1), method="fgsm", until="2 steps", out="runs/taught", **settings, **TINY)
    assert set(run.info["contents"]) == {"extra", "extra-teacher"}
    assert rivals.harden(out="runs/taught", resume=True, quiet=True).info["step"] == 2


def test_only_the_evaluation_network_uses_flip_tta(stripes):
    settings = {"method": "fgsm", "ema": "200", "until": "3 epochs", "seed": 3, **TINY}
    plain = rivals.harden(stripes, Linf(0.1), out="runs/plain", **settings).classifier
    run = rivals.harden(stripes, Linf(0.1), flip_tta=True, out="runs/flip", **settings)
    flipped = run.classifier
    for name, weight in plain.state_dict().items():  # so learning cost no second pass, and was the same
        assert torch.equal(weight, flipped.state_dict()[name]), name
    x = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(flipped(x), (plain(x) + plain(x.flip(3))) / 2)
    assert not torch.equal(flipped(x), plain(x))
    again = rivals.harden(stripes, Linf(0.1), weights="runs/flip", out="runs/again", **settings).classifier
    assert not again.spec["flip_tta"]  # it was not set


def test_hardening_from_weights_begins_where_they_are(stripes):
    plain = rivals.classify(stripes, until="10 epochs", out="runs/plain", **TINY)
    run = rivals.harden(stripes, Linf(0.05), weights="runs/plain", until="1 steps", out="runs/one", **TINY)
    first = next(record for record in run.records() if "accuracy/held_out" in record)
    assert plain.result()["accuracy/test"] == 1.0
    assert first["images"] == 0 and first["accuracy/held_out"] == 1.0


def test_a_killed_run_resumes_to_the_same_bytes(stripes, tmp_path):
    words = ["harden", stripes, "--widths", "4", "8", "--batch-size", "8", "--until", "80 steps", "--method", "free"]
    words += ["--eps", "16/255", "--ema", "100", "--checkpoint-every", "10 steps", "--quiet", "--device", "cpu"]
    words += ["--optimizer", "muon", "--precision", "bf16"]
    assert_killed_run_resumes(words, home=tmp_path, weights="classifier.safetensors")


class Dial(torch.nn.Module):
    """A net of one number."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, 2))

    def forward(self, x):
        return x.flatten(1).mean(1, keepdim=True) @ self.weight


class Ones:
    n, batch_size, micro_batches = 8, 4, 1

    def draw(self, index, stream=0, part=0):
        return torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), torch.ones(4, dtype=torch.int64)


def guarded(tmp_path, course, saves="1 steps"):
    """A game whose evaluations find, at each step, what ``course`` says of (robust, one-step) accuracy.

    Its best states are read by ``guard.checkpoints``, which waits for the thread that writes them.
    """
    run = Run.create(tmp_path / "run", {"command": "test"})
    game = Game(
        {"classifier": Player(Dial(), adam(0.1))}, [Turn("classifier", cross_entropy())], make_step=ClassifierStep
    )
    own = Checkpoints(run.checkpoints)
    guard = RobustCheckpoint(game, Checkpoints(run.folder / "best", others=own), classes=2)

    def evaluate(progress: Progress):
        robust, one_step = course(progress.step, game)
        record = {"images": progress.images, "step": progress.step, "seconds": 0.0}
        record |= {"accuracy/pgd": robust, "accuracy/fgsm": one_step}
        yield record

    from rivals.base.duration import Duration

    def go():
        return play(
            game,
            Ones(),
            until="12 steps",
            callbacks=[Every(Duration.parse("1 steps"), evaluate), guard],
            log=run,
            saving=Saving(own, Duration.parse(saves), rollback=True),
        )

    return run, game, guard, go


def test_catastrophic_overfitting_is_rolled_back_to_the_last_good_state(tmp_path):
    """At step 7 robust accuracy is gone, as long as the rate is whole; with a lower one all goes well."""

    def course(step, game):
        return (0.0, 0.99) if step == 7 and game.lr_scale == 1 else (0.8 + step / 1000, 0.9)

    run, game, _, go = guarded(tmp_path, course)
    assert go().step == 12
    assert game.lr_scale == 0.5
    (rollback,) = (record for record in run.records() if "rollback" in record)
    assert rollback["rollback"] == 6
    assert "robust accuracy fell from 80.6% to 0.0% under PGD, while it is 99.0% under FGSM" in rollback["message"]
    robust = [record["accuracy/pgd"] for record in run.records() if "accuracy/pgd" in record]
    assert robust == pytest.approx([0.8 + step / 1000 for step in range(13)])


def test_a_collapse_that_returns_ends_the_run_with_the_best_state(tmp_path):
    _, game, guard, go = guarded(tmp_path, lambda step, game: (0.0, 0.99) if step == 3 else (0.8, 0.9))
    with pytest.raises(CatastrophicOverfitting):
        go()
    assert game.lr_scale == 0.5**8
    assert guard.checkpoints.load()[1]["step"] == 2


def test_robust_overfitting_is_reported_and_the_best_state_kept(tmp_path):
    run, _, guard, go = guarded(tmp_path, lambda step, game: (0.8 - 0.02 * abs(step - 5), 0.9))
    go()
    alarms = [record for record in run.records() if "alarm" in record]
    assert [alarm["raised"] for alarm in alarms] == [True]
    assert alarms[0]["step"] == 7 and "from 80.0% at step 5" in alarms[0]["message"]
    assert guard.checkpoints.load()[1]["step"] == 5
    assert list(guard.active) == ["robust-overfitting"]


@pytest.mark.parametrize(
    ("after", "best"),
    [(lambda step: 0.95 if step == 7 else 0.81, 7), (lambda step: 0.76, 5)],
    ids=["a better state comes early", "none comes"],
)
def test_states_after_the_checkpoint_gone_back_to_are_no_longer_the_best(tmp_path, after, best):
    """Saved at step 5, ever better up to step 9; there a number bursts, and what comes then is another course."""

    def course(step, game):
        if game.lr_scale < 1 and step > 5:
            return after(step), 0.9
        if step == 9:
            raise NonFinite("loss/classifier", 9)
        return 0.8 + step / 1000, 0.9

    _, game, guard, go = guarded(tmp_path, course, saves="5 steps")
    assert go().step == 12 and game.lr_scale == 0.5
    assert guard.checkpoints.load()[1]["step"] == best


def test_losing_to_one_step_too_is_robust_overfitting_and_not_rolled_back(tmp_path):
    """PGD leaves less than half of what stood at best, but hardly less than one step does."""
    run, game, guard, go = guarded(tmp_path, lambda step, game: (0.8, 0.9) if step < 3 else (0.35, 0.42))
    assert go().step == 12
    assert game.lr_scale == 1 and not any("rollback" in record for record in run.records())
    assert list(guard.active) == ["robust-overfitting"]


def test_an_untrained_network_is_not_the_best(tmp_path):
    _, _, guard, go = guarded(tmp_path, lambda step, game: (0.5 if step < 3 else 0.1 + step / 1000, 0.5))
    go()
    assert guard.checkpoints.load()[1]["step"] == 12


def test_user_errors_are_reported_in_one_line(run_rivals, stripes, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(12):
        Image.new("L", (8, 8), number).save(flat / f"{number}.png")
    bars = np.full((8, 8), 100)
    picture(tmp_path / "others", "up", 12, lambda: bars)
    picture(tmp_path / "others", "down", 12, lambda: bars)
    rivals.train(stripes, until="1 steps", batch_size=4, out="runs/gan", quiet=True, device="cpu")
    quick = ["--until", "1 steps", "--quiet", "--device", "cpu", "--widths", "4"]
    for words, says in (
        (["--method", "trads"], "unknown method 'trads': did you mean trades?"),
        (["--norm", "l3"], "unknown norm 'l3'"),
        (["--norm", "l2"], "--norm l2 needs a radius"),
        (["--eps", "8"], "did you mean 8/255?"),
        (["--eps", "x"], "eps 'x' is not a radius"),
        (["--eps", "0"], "an eps of 0 is not an attack"),
        (["--method", "noise", "--steps", "3"], "--steps has no meaning for the method noise"),
        (["--method", "mart", "--label-smoothing", "0.3"], "--label-smoothing has no meaning for the method mart"),
        (["--method", "fgsm", "--replays", "9"], "--replays has no meaning for the method fgsm"),
        (["--method", "mart", "--steps", "0"], "--steps 0 is not an attack"),
        (["--extra-share", "0.3"], "--extra-share has no meaning without --extra"),
        (["--extra-keep", "0.5"], "add --extra-teacher"),
        (["--extra-judge", "crtic"], "unknown judge of extra images 'crtic': did you mean critic?"),
        (["--extra-judge", "critic"], "--extra-judge has no meaning without --extra"),
        (["--extra-judge", "critic", "--extra", "any"], "where all images are kept"),
        (["--extra", "nowhere"], "unknown data set 'nowhere'"),
        (["--method", "pgd", "--beta", "3"], "--beta has no meaning for the method pgd"),
        (
            ["--method", "trades", "--adversarial-weight", "0.5"],
            "--adversarial-weight has no meaning for the method trades",
        ),
        (["--method", "free", "--awp", "0.01"], "--awp cannot be combined with the method free"),
        (["--start", "somewhere"], "unknown start 'somewhere'"),
        (["--extra", str(flat)], "have no classes"),
        (["--extra", str(tmp_path / "others")], "'others' has down, up; the run has lie, stand"),
        (["--extra", "runs/gan"], "is not a conditional generator"),
        (["--weights", "runs/gan"], "does not fit this data"),
        (["--weights", "nowhere"], "no network at 'nowhere'"),
    ):
        assert says in assert_refused(run_rivals("harden", stripes, *quick, *words)), words
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["gan"]


def test_a_ball_wider_than_half_the_range_is_warned_of(stripes):
    with pytest.warns(UserWarning, match="more than half the images' range"):
        rivals.harden(stripes, Linf(0.6), until="1 steps", out="runs/wide", **TINY)


def test_another_method_drops_the_settings_of_the_one_before():
    config = HardenConfig().changed(method="trades", beta=3.0, steps=7)
    assert config.changed(method="fgsm").resolved == dataclasses.replace(METHODS["fgsm"], step_size=1.25)
    assert config.resolved.step_size == pytest.approx(2.5 / 7)
    with pytest.raises(UserError, match="--beta has no meaning"):
        config.changed(method="pgd", beta=1.0)


@pytest.mark.parametrize(
    ("settings", "step_size"),
    [
        ({"method": "fgsm"}, 1.25),  # Wong et al. 2020
        ({"method": "fgsm", "start": "nfgsm"}, 1.0),  # N-FGSM: alpha = eps (de Jorge et al. 2022)
        ({"method": "fgsm", "start": "nfgsm", "step_size": 1.25}, 1.25),
        ({"method": "trades", "steps": 1, "start": "nfgsm"}, 1.0),
        ({"method": "pgd", "start": "nfgsm", "steps": 5}, 0.5),
        ({"method": "trades"}, 0.25),
    ],
)
def test_the_step_size_is_that_of_the_paper(settings, step_size):
    assert HardenConfig().changed(**settings).resolved.step_size == step_size


def test_the_recipe_of_color_images_is_n_fgsm():
    method = HARDENING["resnet"]().resolved
    assert (method.steps, method.start, method.step_size) == (1, "nfgsm", 1.0)


def test_an_attack_that_is_still_growing_is_no_overfitting_to_one_step():
    """As a run on MNIST went that ended at 96%: at the whole radius PGD fooled all while the ball was still small."""
    early = {"images": 50_048, "step": 391, "seconds": 1.0, "accuracy/fgsm": 0.76, "accuracy/pgd": 0.0}
    guard = RobustCheckpoint(None, None, classes=10, eps_warmup=Duration(125_000, "images"))
    assert list(guard._alarms(early)) == [] and not guard.active
    (alarm,) = guard._alarms(early | {"images": 150_016})
    assert alarm["alarm"] == "one-step-overfitting" and alarm["raised"]
    (over,) = guard._alarms(early | {"images": 200_064, "accuracy/pgd": 0.9})
    assert not over["raised"] and not guard.active
