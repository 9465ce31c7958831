"""What follows the time: schedules in minutes, and the share of a run that its callbacks may take."""

import pytest

from helpers.small_games import affine_game, noise_images
from rivals.base.duration import Duration
from rivals.data.batches import Batches
from rivals.game import metric_buffer
from rivals.game.callbacks import Every, OnLog
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Turn
from rivals.game.loop import Saving, play
from rivals.game.player import Player, adam
from rivals.losses.gan import hinge


class FakeTime:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    fake = FakeTime()
    monkeypatch.setattr(metric_buffer, "time", fake)
    return fake


class Slow(Batches):
    """Batches that take a second each, and ``slower`` seconds from the tenth on."""

    def __init__(self, time, slower=1.0):
        super().__init__(noise_images(), 4, seed=0)
        self.time, self.slower = time, slower

    def draw(self, index, stream=0, part=0):
        self.time.now += self.slower if index >= 10 else 1.0
        return super().draw(index, stream, part)


def timed_game(lr="1e-2 -> 1e-3 in 1 minutes"):
    game = affine_game([Turn("discriminator", hinge.discriminator)])
    game.players["discriminator"] = Player(game.players["discriminator"].net, adam(lr))
    return game


@pytest.mark.parametrize(("slower", "steps"), [(1.0, 60), (8.0, 17), (0.25, 210)])
def test_a_schedule_in_minutes_ends_with_the_run_however_fast_the_machine_becomes(time, slower, steps):
    rates = []
    game = timed_game()
    rate = Every(Duration(1, "steps"), lambda progress: rates.append(lr_of(game)) or ())
    end = play(game, Slow(time, slower), until="1 minutes", callbacks=[rate])
    assert end.step == steps
    assert rates[1:] == sorted(rates[1:], reverse=True)
    # The last round begins one round before the end.
    assert rates[1] == pytest.approx(1e-2) and rates[-1] == pytest.approx(1e-3, rel=0.45 if slower == 8 else 0.02)


def lr_of(game):
    return game.players["discriminator"].optimizer.lr


def test_a_resumed_run_takes_up_the_schedule_at_its_time(time, tmp_path):
    def run(until, resume):
        game = timed_game()
        play(game, Slow(time), until=until, saving=Saving(Checkpoints(tmp_path), Duration(9, "steps"), resume))
        return lr_of(game)

    run("30 steps", False)
    time.now += 1000  # between two processes
    resumed = run("31 steps", True)
    time.now = 0.0
    game = timed_game()
    play(game, Slow(time), until="31 steps")
    assert resumed == pytest.approx(lr_of(game))


@pytest.mark.parametrize(
    ("share", "cost", "calls"), [(None, 30.0, 61), (0.1, 0.5, 13), (0.1, 4.0, 2), (0.01, 0.01, 61)]
)
def test_a_callback_takes_no_more_than_its_share_of_the_time(time, share, cost, calls):
    measured = []

    def measure(progress):
        time.now += cost
        measured.append(progress.step)
        return ()

    play(timed_game(), Slow(time), until="60 steps", callbacks=[Every(Duration(1, "steps"), measure, share)])
    assert measured[0] == 0 and measured[-1] == 60
    assert len(measured) == pytest.approx(calls, abs=1)


def test_records_of_callbacks_left_out_are_missing_and_all_others_stay(time):
    records = []

    def measure(progress):
        time.now += 5
        return [progress.record(looked=True)]

    callbacks = [Every(Duration(1, "steps"), measure, 0.1), OnLog(records.append)]
    play(timed_game(), Slow(time), until="20 steps", callbacks=callbacks)
    assert [r["step"] for r in records if "loss/discriminator" in r] == list(range(1, 21))
    assert [r["step"] for r in records if "looked" in r] == [0, 20]
