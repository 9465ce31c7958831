"""The loop: records, callbacks, checkpoints, resuming, training failures."""

import math
from itertools import pairwise

import pytest
import torch

from helpers.small_games import SMALL_WIDTHS, affine_game, noise_images, small_game, states_equal
from rivals.base.duration import Duration
from rivals.data.batches import Batches
from rivals.game.callbacks import Every, OnLog
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Turn
from rivals.game.loop import Saving, play
from rivals.game.metric_buffer import NonFinite
from rivals.losses.gan import hinge, relativistic


@pytest.fixture(scope="module")
def images():
    return noise_images()


def test_records_hold_losses_outputs_gradient_norms_and_speed(images):
    game, config = small_game("quick")
    records = []
    end = play(game, Batches(images, 4, seed=0), until="10 steps", callbacks=[OnLog(records.append)])
    assert end.step == len(records) == 10
    assert [record["images"] for record in records] == [4 * step for step in range(1, 11)]
    keys = {"step", "seconds", "loss/discriminator", "loss/generator", "d_real", "d_fake", "images_per_second"}
    keys |= {"grad_norm/discriminator", "grad_norm/generator"}
    assert all(keys <= record.keys() for record in records)
    assert [step for step, record in enumerate(records) if "penalty/r1" in record] == [0, 8]
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(records))
    assert config.penalty_every == 8


def test_every_discriminator_turn_has_a_new_batch(images):
    class Counted(Batches):
        def draw(self, index, stream=0, part=0):
            drawn[stream].append(index)
            return super().draw(index, stream, part)

    drawn = {0: [], 1: []}
    game = affine_game(
        [Turn("discriminator", relativistic.discriminator, times=3), Turn("generator", relativistic.generator)]
    )
    end = play(game, Counted(images, 5, seed=0), until="4 steps")
    assert drawn == {0: list(range(12)), 1: list(range(4))}
    assert (end.images, end.epochs) == (60, 60 / 50)


@pytest.mark.parametrize("recipe", SMALL_WIDTHS)  # those published for many GPUs are built in test_games.py
def test_every_recipe_trains_with_and_without_classes(images, recipe):
    for conditional in (False, True):
        game, _ = small_game(recipe, conditional=conditional)
        records = []
        play(game, Batches(images, 4, seed=0), until="3 steps", callbacks=[OnLog(records.append)])
        assert all(math.isfinite(value) for record in records for value in record.values() if value is not None)


@pytest.mark.parametrize("recipe", SMALL_WIDTHS)  # those published for many GPUs are built in test_games.py
def test_resumed_game_equals_the_uninterrupted_one_bit_for_bit(images, recipe, tmp_path):
    settings = {"instance_noise": "0.1 -> 0 in 30 images", "flip": True, "ema": 20}

    def run(folder, until, resume=False):
        game, _ = small_game(recipe, **settings)
        saving = Saving(Checkpoints(tmp_path / folder), Duration.parse("3 steps"), resume)
        round = game.round
        game.round = lambda step, *args, **options: played.append(step) or round(step, *args, **options)
        play(game, Batches(images, 4, seed=0, flip=True), until=until, saving=saving)
        return game.state()

    played = []
    whole = run("whole", "13 steps")
    run("parts", "4 steps")
    torch.randn(7)  # another process has another random state
    run("parts", "8 steps", resume=True)
    assert states_equal(whole, run("parts", "13 steps", resume=True))
    assert played == [*range(13), *range(13)]  # none twice


def test_a_resume_from_an_earlier_checkpoint_drops_the_damaged_one_and_reaches_the_same_end(images, tmp_path):
    def run(folder, until, resume=False):
        game, _ = small_game("mlp")
        checkpoints = Checkpoints(tmp_path / folder)
        play(game, Batches(images, 4, seed=0), until=until, saving=Saving(checkpoints, Duration(4, "steps"), resume))
        return game.state(), checkpoints.paths()

    whole, _ = run("whole", "13 steps")
    _, (*_, newest) = run("parts", "9 steps")
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    resumed, paths = run("parts", "13 steps", resume=True)
    assert states_equal(whole, resumed)
    assert [path.stem.lstrip("0") for path in paths] == ["8", "12", "13-end"]
    _, paths = run("parts", "14 steps", resume=True)
    paths[-1].write_bytes(b"")
    _, paths = run("parts", "13 steps", resume=True)
    assert [path.stem.lstrip("0") for path in paths] == ["8", "12", "13-end"]


def test_a_run_that_was_stopped_returns_after_a_failure_to_where_one_that_was_not_does(images, tmp_path):
    """The learning rate of the end is another then, and so is the result, if it returns to where it was stopped."""

    def run(folder, until, at, resume=False):
        game = affine_game([Turn("discriminator", hinge.discriminator), Turn("generator", explode(at))])
        checkpoints = Checkpoints(tmp_path / folder)
        saving = Saving(checkpoints, Duration(4, "steps"), resume, rollback=True)
        play(game, Batches(images, 4, seed=0), until=until, saving=saving)
        return game.state(), [path.name for path in checkpoints.paths()]

    whole, kept = run("whole", "10 steps", at=7)  # from step 7 back to 4
    run("parts", "6 steps", at=99)
    stopped, kept_too = run("parts", "10 steps", at=1, resume=True)
    assert states_equal(whole, stopped) and kept == kept_too


def test_same_seed_gives_the_same_game_and_the_global_random_state_is_unchanged(images):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        expected = torch.get_rng_state()
        game, _ = small_game("mlp-classic", seed=seed)
        play(game, Batches(images, 4, seed=seed), until="3 steps", seed=seed)
        assert torch.equal(torch.get_rng_state(), expected)
        states.append(game.state())
    assert states_equal(states[0], states[1])
    assert not states_equal(states[0], states[2])


def test_callbacks_measure_before_the_first_round_in_between_and_after_the_last(images):
    game, _ = small_game("mlp-classic")
    steps_measured = []

    def measure(progress):
        steps_measured.append(progress.step)
        yield progress.record(sample_grid="x")

    records = []
    play(
        game,
        Batches(images, 4, seed=0),
        until="10 steps",
        callbacks=[Every(Duration(4, "steps"), measure), OnLog(records.append)],
    )
    assert steps_measured == [0, 4, 8, 10]
    assert [record["step"] for record in records if "sample_grid" in record] == steps_measured
    steps = [record["step"] for record in records]
    assert steps == sorted(steps)


def test_stop_saves_and_returns(images, tmp_path):
    game, _ = small_game("mlp-classic")
    checkpoints = Checkpoints(tmp_path)
    count = iter(range(100))
    end = play(
        game,
        Batches(images, 4, seed=0),
        until="1M steps",
        saving=Saving(checkpoints, Duration(1000, "minutes")),
        stop=lambda: next(count) == 5,
    )
    assert end.step == 5
    tensors, facts = checkpoints.load()
    assert facts["step"] == 5
    assert states_equal(tensors, game.state())


def explode(at):
    """A loss that is not a number in round ``at``."""
    calls = iter(range(10**6))
    return lambda step: {"pair": step.fake.mean() * (math.nan if next(calls) == at else 1.0)}


def test_non_finite_loss_stops_the_run_and_is_named(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator), Turn("generator", explode(at=5))])
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(NonFinite, match=r"the generator's loss .* at step 6, in the generator's turn"):
        play(
            game,
            Batches(images, 4, seed=0),
            until="20 steps",
            saving=Saving(checkpoints, Duration(2, "steps")),
        )
    tensors, facts = checkpoints.load()
    assert facts["step"] == 4
    assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_non_finite_weights_are_never_saved(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator)])
    net = game.players["generator"].net
    checkpoints = Checkpoints(tmp_path)  # of which load waits for the thread that writes

    def spoil(progress):
        if progress.step == 5:
            with torch.no_grad():
                net.layer.weight.fill_(math.inf)
        return ()

    with pytest.raises(NonFinite, match="weights"):
        play(
            game,
            Batches(images, 4, seed=0),
            until="6 steps",
            saving=Saving(checkpoints, Duration(5, "steps")),
            callbacks=[Every(Duration(1, "steps"), spoil)],
        )
    assert checkpoints.load()[1]["step"] == 0


def test_rollback_restores_the_checkpoint_and_halves_the_learning_rates(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator), Turn("generator", explode(at=5))])
    records = []
    end = play(
        game,
        Batches(images, 4, seed=0),
        until="8 steps",
        saving=Saving(Checkpoints(tmp_path), Duration(2, "steps"), rollback=True),
        callbacks=[OnLog(records.append)],
    )
    assert end.step == 8
    assert game.lr_scale == 0.5
    assert Checkpoints(tmp_path).load()[1]["lr_scale"] == 0.5
    (note,) = [record for record in records if "rollback" in record]
    assert note["rollback"] == 4
    assert "all learning rates halved" in note["message"]
    assert game.players["generator"].optimizer.lr == pytest.approx(0.5e-2)


def test_rollback_gives_up_after_repeated_failures(images, tmp_path):
    nan = Turn("generator", lambda step: {"pair": step.fake.mean() * math.nan})
    game = affine_game([nan])
    with pytest.raises(NonFinite):
        play(
            game,
            Batches(images, 4, seed=0),
            until="5 steps",
            saving=Saving(Checkpoints(tmp_path), Duration(1, "steps"), rollback=True),
        )
