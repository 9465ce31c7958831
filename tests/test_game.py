"""The loop: who learns when, what is held constant, what is recorded, and that a stop changes nothing."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from rivals.api.assemble import build_game
from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.data.imageset import ImageSet
from rivals.data.stream import Batches
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game, Turn
from rivals.game.ledger import Ledger, NonFinite
from rivals.game.play import Interlude, Saving, play
from rivals.game.players import Player, adam
from rivals.game.scene import Scene
from rivals.losses.gan import hinge, nonsaturating, relativistic
from rivals.losses.penalties import r1, r2
from rivals.recipes import RECIPES, Config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    return ImageSet("noise", "train", pixels, np.arange(50) % 2, ("even", "odd"))


SMALL = {
    "quick": {"generator_widths": (8,), "discriminator_widths": (8,)},
    "mlp-classic": {"generator_widths": (16,), "discriminator_widths": (16,)},
    "mlp": {"generator_widths": (16,), "discriminator_widths": (16,)},
    "dcgan": {"generator_widths": (8,), "discriminator_widths": (8,)},
    "sngan": {"generator_widths": (8, 8), "discriminator_widths": (8, 8), "discriminator_turns": 2},
    "r3": {"generator_widths": (8, 8), "discriminator_widths": (8, 8)},
}


def small(recipe, seed=0, **settings):
    config = RECIPES[recipe]().changed(**{"batch": 4, "latent": 5, **SMALL[recipe], **settings})
    return build_game(config, size=8, channels=1, classes=2, device=CPU, seed=seed), config


def snapshot(net):
    return {key: value.clone() for key, value in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Affine(nn.Module):
    """A generator or discriminator simple enough to know everything about."""

    classes, latent = 0, 3

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x, labels=None):
        y = self.layer(x.flatten(1))
        return y.flatten() if y.shape[1] == 1 else y.view(-1, 1, 8, 8)


def affine_game(turns, seed=0, **player):
    torch.manual_seed(seed)
    players = {
        "generator": Player(Affine(3, 64), adam(1e-2), **player),
        "discriminator": Player(Affine(64, 1), adam(1e-2)),
    }
    return Game(players, turns)


@pytest.mark.parametrize("mover", ["discriminator", "generator"])
def test_a_turn_moves_one_player_and_leaves_the_other_as_it_was(images, mover):
    other = {"discriminator": "generator", "generator": "discriminator"}[mover]
    game = affine_game([Turn(mover, getattr(relativistic, mover))])
    before = {name: snapshot(player.net) for name, player in game.players.items()}
    seen = []
    hold = game.players[other].net.layer.weight.register_hook(seen.append)
    game.round(0, Batches(images, 4, seed=0), seed=0)
    hold.remove()
    assert not seen
    assert same(before[other], snapshot(game.players[other].net))
    assert not same(before[mover], snapshot(game.players[mover].net))
    weights = [weight for player in game.players.values() for weight in player.net.parameters()]
    assert all(weight.grad is None and weight.requires_grad for weight in weights)


def test_the_discriminators_turn_holds_the_images_constant_and_the_generators_does_not():
    for mover, graph in (("discriminator", False), ("generator", True)):
        nets = {"generator": Affine(3, 64), "discriminator": Affine(64, 1)}
        scene = Scene(nets, mover, lambda: (torch.zeros(4, 1, 8, 8), None), batch=4, images=0, view=None, slopes=False)
        assert scene.fake_images.requires_grad is graph
        assert scene.real.shape == scene.fake.shape == (4,)
        assert scene.real.requires_grad is not graph


def test_a_loss_that_needs_no_real_images_draws_none():
    def draw():
        raise AssertionError("nobody asked for real images")

    nets = {"generator": Affine(3, 64), "discriminator": Affine(64, 1)}
    scene = Scene(nets, "generator", draw, batch=4, images=0, view=None, slopes=False)
    scene.nets["generator"].classes = 0
    scene.__dict__["labels"] = None
    nonsaturating().generator(scene)
    assert "real" not in scene.__dict__


def test_one_pass_over_both_batches_is_the_game_of_two_passes():
    """Slopes and logits, joint or apart, against autograd on each image."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()

    class D(nn.Module):
        couples_batch = False

        def forward(self, x, labels):
            return net(x)

    real = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    found = []
    for couples in (False, True):
        d = D()
        d.couples_batch = couples
        nets = {"generator": Affine(3, 64).double(), "discriminator": d}
        scene = Scene(nets, "discriminator", lambda: (real, None), batch=3, images=0, view=None, slopes=True)
        scene.__dict__["fake_images"] = real.flip(0) * 2
        found.append((scene.real, scene.fake, scene.real_slopes, scene.fake_slopes))
    for joint, apart in zip(*found, strict=True):
        torch.testing.assert_close(joint, apart)
    for i, image in enumerate(scene.real_images):
        x = image[None].requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x)
        torch.testing.assert_close(found[0][2][i], slope[0])


def test_lazy_penalties_are_taken_when_due_and_weigh_as_much(images):
    every = 3
    turns = [Turn("discriminator", hinge.discriminator, [r1(0.5, every), r2(0.5, every)])]
    game = affine_game(turns)
    net = game.players["discriminator"].net
    batches = Batches(images, 4, seed=0)
    for step in range(7):
        weight = net.layer.weight.detach().clone()
        values = game.round(step, batches, seed=0)
        assert ("penalty/r1" in values) == ("penalty/r2" in values) == (step % every == 0)
        if step % every == 0:  # D is affine, so both penalties are gamma / 2 |w|^2
            assert values["penalty/r1"].item() == pytest.approx(0.25 * weight.square().sum().item(), rel=1e-5)


def test_a_lazy_penaltys_gradient_is_multiplied_by_its_interval(images):
    """With gamma alone pulling (both batches alike, so that the loss has no gradient), |grad| = every * gamma |w|."""
    nothing = Turn("discriminator", lambda s: {"none": (s.real * 0).sum()}, [r1(0.5, every=4)])
    game = affine_game([nothing])
    weight = game.players["discriminator"].net.layer.weight.detach().clone()
    values = game.round(0, Batches(images, 4, seed=0), seed=0)
    assert values["grad_norm/discriminator"].item() == pytest.approx(4 * 0.5 * weight.norm().item(), rel=1e-5)


def test_records_hold_what_a_student_plots(images):
    game, config = small("quick")
    records = []
    end = play(game, Batches(images, 4, seed=0), until="10 steps", show=records.append)
    assert end.step == len(records) == 10
    assert [record["images"] for record in records] == [4 * step for step in range(1, 11)]
    keys = {"step", "seconds", "loss/discriminator", "loss/generator", "d_real", "d_fake", "images_per_second"}
    keys |= {"grad_norm/discriminator", "grad_norm/generator"}
    assert all(keys <= record.keys() for record in records)
    assert [step for step, record in enumerate(records) if "penalty/r1" in record] == [0, 8]
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(records))
    assert config.penalty_every == 8


def test_parts_add_up_to_the_loss(images):
    game, _ = small("mlp-classic")
    values = game.round(0, Batches(images, 4, seed=0), seed=0)
    parts = values["loss/discriminator/real"] + values["loss/discriminator/fake"]
    torch.testing.assert_close(values["loss/discriminator"], parts)
    assert 0 < values["d_real"].item() < 1


def test_several_discriminator_turns_each_see_new_images_and_an_epoch_shows_each_once(images):
    class Counted(Batches):
        def draw(self, index, lane=0):
            drawn[lane].append(index)
            return super().draw(index, lane)

    drawn = {0: [], 1: []}
    game = affine_game(
        [Turn("discriminator", relativistic.discriminator, times=3), Turn("generator", relativistic.generator)]
    )
    end = play(game, Counted(images, 5, seed=0), until="4 steps")
    assert drawn == {0: list(range(12)), 1: list(range(4))}
    assert (end.images, end.epochs) == (60, 60 / 50)


def test_the_average_follows_its_half_life(images):
    game = affine_game([Turn("generator", relativistic.generator)], ema=40)
    player = game.players["generator"]
    expected = player.net.layer.bias.detach().clone()
    batches = Batches(images, 10, seed=0)
    for step in range(30):
        game.round(step, batches, seed=0)
        beta = 0.5 ** (10 / min(40, (step + 1) * 10 / 20))
        expected = beta * expected + (1 - beta) * player.net.layer.bias.detach()
    torch.testing.assert_close(player.average.layer.bias, expected)
    assert player.shown is player.average


def test_rates_and_betas_follow_their_schedules(images):
    game, _ = small("quick", generator_lr="1e-3 -> 1e-4 in 40 images", beta2="0.9 -> 0.99 in 40 images")
    play(game, Batches(images, 4, seed=0), until="6 steps")
    group = game.players["generator"].optimizer.param_groups[0]  # as set before the sixth step, after 20 images
    assert group["lr"] == pytest.approx(5.5e-4)
    assert group["betas"][1] == pytest.approx(0.945)


@pytest.mark.parametrize("recipe", SMALL)  # those published for many GPUs are built in test_games.py
def test_every_recipe_plays_alone_and_told_the_classes(images, recipe):
    for conditional in (False, True):
        game, _ = small(recipe, conditional=conditional)
        records = []
        play(game, Batches(images, 4, seed=0), until="3 steps", show=records.append)
        assert all(math.isfinite(value) for record in records for value in record.values() if value is not None)


@pytest.mark.parametrize("recipe", SMALL)  # those published for many GPUs are built in test_games.py
def test_a_resumed_game_is_the_uninterrupted_one_bit_for_bit(images, recipe, tmp_path):
    settings = {"instance_noise": "0.1 -> 0 in 30 images", "flip": True, "ema": 20}

    def run(folder, until, resume=False):
        game, _ = small(recipe, **settings)
        saving = Saving(Checkpoints(tmp_path / folder), Span.parse("3 steps"), resume)
        play(game, Batches(images, 4, seed=0, flip=True), until=until, saving=saving)
        return game.state()

    whole = run("whole", "13 steps")
    run("parts", "4 steps")
    torch.randn(7)  # another process has another random state
    run("parts", "8 steps", resume=True)
    assert same(whole, run("parts", "13 steps", resume=True))


def test_the_same_seed_plays_the_same_game_and_leaves_the_callers_randomness_alone(images):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        expected = torch.get_rng_state()
        game, _ = small("mlp-classic", seed=seed)
        play(game, Batches(images, 4, seed=seed), until="3 steps", seed=seed)
        assert torch.equal(torch.get_rng_state(), expected)
        states.append(game.state())
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_interludes_come_at_the_start_in_between_and_at_the_end(images):
    game, _ = small("mlp-classic")
    moments = []
    act = lambda moment: moments.append(moment.step) or [{"images": 0, "step": moment.step, "sheet": "x"}]  # noqa: E731
    records = []
    play(
        game,
        Batches(images, 4, seed=0),
        until="10 steps",
        interludes=[Interlude(Span(4, "steps"), act)],
        show=records.append,
    )
    assert moments == [0, 4, 8, 10]
    assert [record["step"] for record in records if "sheet" in record] == moments
    steps = [record["step"] for record in records]
    assert steps == sorted(steps)


def test_a_stop_saves_and_leaves(images, tmp_path):
    game, _ = small("mlp-classic")
    checkpoints = Checkpoints(tmp_path)
    count = iter(range(100))
    end = play(
        game,
        Batches(images, 4, seed=0),
        until="1M steps",
        saving=Saving(checkpoints, Span(1000, "minutes")),
        stop=lambda: next(count) == 5,
    )
    assert end.step == 5
    tensors, facts = checkpoints.load()
    assert facts["step"] == 5
    assert same(tensors, game.state())


# What goes wrong


def explode(at):
    """A loss that is not a number in round ``at``."""
    calls = iter(range(10**6))
    return lambda scene: {"pair": scene.fake.mean() * (math.nan if next(calls) == at else 1.0)}


def test_a_number_that_is_not_finite_stops_the_run_and_is_named(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator), Turn("generator", explode(at=5))])
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(NonFinite, match=r"the generator's loss .* at step 6, in the generator's turn"):
        play(
            game,
            Batches(images, 4, seed=0),
            until="20 steps",
            saving=Saving(checkpoints, Span(2, "steps")),
        )
    tensors, facts = checkpoints.load()
    assert facts["step"] == 4
    assert all(bool(value.isfinite().all()) for value in tensors.values())


def test_weights_that_are_not_finite_are_never_saved(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator)])
    net = game.players["generator"].net

    def spoil(moment):
        if moment.step == 5:
            with torch.no_grad():
                net.layer.weight.fill_(math.inf)
        return ()

    with pytest.raises(NonFinite, match="weights"):
        play(
            game,
            Batches(images, 4, seed=0),
            until="6 steps",
            saving=Saving(Checkpoints(tmp_path), Span(5, "steps")),
            interludes=[Interlude(Span(1, "steps"), spoil)],
        )
    assert Checkpoints(tmp_path).load()[1]["step"] == 0


def test_a_rollback_goes_back_and_halves_the_rates(images, tmp_path):
    game = affine_game([Turn("discriminator", hinge.discriminator), Turn("generator", explode(at=5))])
    records = []
    end = play(
        game,
        Batches(images, 4, seed=0),
        until="8 steps",
        saving=Saving(Checkpoints(tmp_path), Span(2, "steps")),
        rollback=True,
        show=records.append,
    )
    assert end.step == 8
    assert game.rate == 0.5
    assert Checkpoints(tmp_path).load()[1]["rate"] == 0.5
    (note,) = [record for record in records if "rollback" in record]
    assert note["rollback"] == 4
    assert "all rates halved" in note["says"]
    assert game.players["generator"].optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-2)


def test_a_game_that_always_breaks_is_given_up(images, tmp_path):
    nan = Turn("generator", lambda scene: {"pair": scene.fake.mean() * math.nan})
    game = affine_game([nan])
    with pytest.raises(NonFinite):
        play(
            game,
            Batches(images, 4, seed=0),
            until="5 steps",
            saving=Saving(Checkpoints(tmp_path), Span(1, "steps")),
            rollback=True,
        )


def test_checkpoints_keep_two_and_pass_over_a_broken_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="no readable checkpoint"):
        checkpoints.load()
    for step in range(4):
        checkpoints.save(step, {"x": torch.full((2,), float(step))}, {"note": "n"})
    assert [path.name for path in checkpoints.paths()] == ["000000000002.safetensors", "000000000003.safetensors"]
    (tmp_path / ".000000000004.safetensors.tmp").write_bytes(b"left by a kill")
    checkpoints.save(3, {"x": torch.full((2,), 3.0)}, {"note": "n"})
    assert not list(tmp_path.glob(".*"))
    checkpoints.paths()[-1].write_bytes(b"half")
    tensors, facts = checkpoints.load()
    assert facts == {"note": "n", "step": 2}
    assert tensors["x"].tolist() == [2, 2]


def test_the_ledger_gives_only_what_has_arrived(monkeypatch):
    ledger = Ledger(seconds=100.0)
    ledger.add(1, 4, {"loss/generator": torch.tensor(1.5)})
    ledger.add(2, 8, {"loss/generator": torch.tensor(2.5), "penalty/r1": torch.tensor(0.25)})

    class Event:
        asked = waited = 0

        def query(self):
            self.asked += 1
            return False

        def synchronize(self):
            self.waited += 1

    event = Event()
    ledger._rows[0].arrived = event
    assert list(ledger.arrived()) == []  # the second is here, but records keep their order
    assert (event.asked, event.waited) == (1, 0)
    first, second = ledger.drain()
    assert event.waited == 1
    assert first["loss/generator"] == 1.5
    assert "penalty/r1" not in first
    assert second["penalty/r1"] == 0.25
    assert second["seconds"] >= 100


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("loss/generator/pair", "the generator's loss, part 'pair',"),
        ("penalty/r1", "the penalty r1"),
        ("grad_norm/discriminator", "the discriminator's gradient"),
    ],
)
def test_the_ledger_names_what_is_not_finite(key, words):
    ledger = Ledger()
    ledger.add(7, 28, {key: torch.tensor(math.inf)})
    with pytest.raises(NonFinite) as caught:
        list(ledger.arrived())
    assert words in str(caught.value)
    assert "step 7" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"generator_lr": -1e-3},
        {"discriminator_lr": 5},
        {"generator_lr": 0},
        {"beta1": 1.0},
        {"beta2": 1.5},
        {"ema": -1},
        {"batch": 1},
        {"latent": 0},
        {"r1": -1},
        {"instance_noise": -0.1},
        {"smoothing": 0.1},
        {"loss": "hing"},
        {"net": "dcgn"},
        {"penalty_every": 0},
        {"discriminator_turns": 0},
        {"generator_widths": (0,)},
        {"generator_widths": (4, 4, 4, 4, 4)},
        {"dropout": 0.5},
        {"nonsense": 1},
        {"until": "a while"},
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings):
    with pytest.raises(UserError) as caught:
        small("quick", **settings)
    assert "\n" not in str(caught.value)


def test_a_configuration_is_read_back_as_it_is_written():
    for recipe in RECIPES.values():
        assert Config().changed(**recipe().written()) == recipe()


def test_in_bf16_products_are_short_and_everything_else_is_not(images):
    game, _ = small("quick", precision="bf16", penalty_every=2)
    net = game.players["discriminator"].net
    seen = []
    for part in net.layers:
        part.register_forward_hook(lambda part, x, y: seen.append(y.dtype))
    batches = Batches(images, 4, seed=0)
    # The penalty's slopes are of the same pass as the loss, so it is taken in float32.
    game._take(game.turns[0], 0, 0, batches, 0, 0)
    assert set(seen) == {torch.float32}
    seen.clear()
    values = game._take(game.turns[0], 1, 4, batches, 0, 1)
    assert set(seen) == {torch.bfloat16}
    assert all(value.dtype == torch.float32 and value.isfinite() for value in values.values())
    assert {weight.dtype for player in game.players.values() for weight in player.net.parameters()} == {torch.float32}
    exact, _ = small("quick", precision="fp32", penalty_every=2)
    exact._take(exact.turns[0], 0, 0, batches, 0, 0)
    other = exact._take(exact.turns[0], 1, 4, batches, 0, 1)
    assert values["loss/discriminator"] == pytest.approx(float(other["loss/discriminator"]), abs=0.02)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which the tracer itself looks at
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_game_is_the_same_game(images, monkeypatch, precision):
    # The flags are those for an accelerator; the backend is the one that needs no compiler.
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compile(net, backend="aot_eager"))
    told = []
    for compiled in (False, True):
        game, _ = small("quick", compile=compiled, precision=precision, penalty_every=2)
        told.append([game.round(step, Batches(images, 4, seed=0), seed=0) for step in range(4)])
    assert [part.keys() for part in told[0]] == [part.keys() for part in told[1]]
    slack = 1e-4 if precision == "fp32" else 0.02
    for plain, fused in zip(*told, strict=True):
        assert all(float(fused[key]) == pytest.approx(float(plain[key]), abs=slack, rel=slack) for key in plain)
