"""A critic in another's training loop."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d

import rivals
from rivals.api.critic import ADVICE, CriticWarning
from rivals.base.errors import UserError
from rivals.base.schedules import Schedule
from rivals.game import health_monitor
from rivals.game.metric_buffer import TrainingFailure
from rivals.losses.gan import LOSSES
from rivals.losses.penalties import LeCam, Penalty, lecam
from rivals.nets.patchgan import PatchDiscriminator


def patches():
    """A small PatchGAN: a map of logits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 4, 2, 1))


def images(n=6, seed=0, side=8):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body, self.last = nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 3, 4, 2, 1)

    def forward(self, x):
        return self.last(self.body(x).relu())


def train(critic, steps, model=None, seed=0):
    model = model or Autoencoder()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(steps):
        x = images(seed=seed + step)
        y = model(x)
        l1 = (y - x).abs().mean()
        loss = l1 + critic.loss(y, reconstruction=l1, last_layer=model.last.weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        critic.learn(x, y)
    return model


def test_the_critic_learns_to_tell_and_the_generator_is_not_touched_by_its_turn():
    critic, model = rivals.Critic(patches()), Autoencoder()
    x, y = images(), model(images())
    first = critic.learn(x, y)
    for _ in range(60):
        last = critic.learn(x, y)
    assert last["loss/discriminator"] < first["loss/discriminator"]
    assert last["d_real"] > last["d_fake"]
    assert all(weight.grad is None for weight in model.parameters())


def test_the_loss_reaches_the_model_alone():
    critic, model = rivals.Critic(patches()), Autoencoder()
    before = copy.deepcopy(critic.net.state_dict())
    critic.loss(model(images())).backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert all(weight.grad is None for weight in critic.net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in critic.net.state_dict().items())


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_adaptive_weight_makes_both_gradients_as_long(weight):
    critic, model, x = rivals.Critic(patches(), weight=weight), Autoencoder(), images()
    y = model(x)
    l1 = (y - x).abs().mean()
    adversarial = critic.loss(y, reconstruction=l1, last_layer=model.last.weight)
    mine, theirs = (
        torch.autograd.grad(each, model.last.weight, retain_graph=True)[0].norm() for each in (l1, adversarial)
    )
    assert theirs.item() == pytest.approx(weight * mine.item(), rel=0.01)


@pytest.mark.parametrize(("start", "waits"), [("18 images", 3), ("13 images", 3), ("2 steps", 2), (None, 0)])
def test_before_its_start_it_counts_only(start, waits):
    critic = rivals.Critic(patches(), start=start, weight="0 -> 1 in 12 images")
    before, x = copy.deepcopy(critic.net.state_dict()), images()
    for _ in range(waits):
        assert critic.loss(x) == 0 and critic.learn(x, x) == {}
    assert all(torch.equal(value, before[key]) for key, value in critic.net.state_dict().items())
    weights = []
    for _ in range(3):
        assert critic.started
        weights.append(float(critic.loss(x) / -critic.net(x).mean()))  # the generator's hinge loss
        assert "loss/discriminator" in critic.learn(x, x)
    assert weights == pytest.approx([0, 0.5, 1], abs=1e-5)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_and_penalty_plays(loss):
    penalties = [rivals.r1(0.1, every=2), rivals.r2(0.1), rivals.wgan_gp(1.0), rivals.fd_r1(0.1), rivals.fd_r2(0.1)]
    critic = rivals.Critic(patches(), loss, penalties)
    for step in range(3):
        x, y = images(seed=step), images(seed=9 + step)
        assert critic.loss(y, real=x).isfinite()
        values = critic.learn(x, y)
        assert ("penalty/r1" in values) == (step % 2 == 0)
        assert all(value.isfinite() for value in values.values())


def test_a_penalty_is_that_of_the_formula():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3)))

        def forward(self, x):
            return (x * self.weight).sum((1, 2, 3))

    net = Linear()
    norm = net.weight.square().sum().item()
    values = rivals.Critic(net, penalties=[rivals.r1(3.0)]).learn(images(), images(seed=1))
    assert float(values["penalty/r1"]) == pytest.approx(1.5 * norm, rel=1e-5)


@pytest.mark.parametrize("places", [1, 2, 5])
@pytest.mark.parametrize("batch_stats", [False, True])
def test_a_penalty_of_a_map_is_that_of_its_mean(places, batch_stats):
    """A map of equal logits is penalized as one of them, or patches would be stopped by penalties that suit images."""

    class Map(nn.Module):
        uses_batch_stats = batch_stats

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3)))

        def forward(self, x):
            return (x * self.weight).sum((1, 2, 3))[:, None, None, None].expand(-1, 1, places, places)

    net = Map()
    norm = net.weight.square().sum().item()
    penalties = [rivals.r1(3.0), rivals.r2(5.0), rivals.wgan_gp(10.0)]
    values = rivals.Critic(net, penalties=penalties).learn(images(), images(seed=1))
    assert float(values["penalty/r1"]) == pytest.approx(1.5 * norm, rel=1e-4)
    assert float(values["penalty/r2"]) == pytest.approx(2.5 * norm, rel=1e-4)
    assert float(values["penalty/gp"]) == pytest.approx(10 * (norm**0.5 - 1) ** 2, rel=1e-4)
    by_difference = []
    for seed in range(20):
        critic = rivals.Critic(Map(), penalties=[rivals.fd_r1(3.0)], seed=seed)
        by_difference.append(float(critic.learn(images(64), images(64))["penalty/fd_r1"]))
    # A chi-squared value for each image: the mean of 1,280 lies within 15% by nearly four standard deviations.
    assert sum(by_difference) / len(by_difference) == pytest.approx(1.5 * norm, rel=0.15)


def test_patches_learn_beside_the_penalty_that_the_docs_name():
    """Sharp images against blurred ones, which a patch discriminator tells apart at a glance."""
    critic = rivals.Critic(
        PatchDiscriminator(widths=(16, 32)), penalties=[rivals.r1(0.1, every=8)], optimizer=rivals.adam(2e-3)
    )
    for step in range(150):
        x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(step))
        values = critic.learn(x, avg_pool2d(x, 3, 1, 1))
    assert values["d_real"] - values["d_fake"] > 1


def test_what_is_frozen_in_a_critic_stays_as_it_is():
    """A backbone under a head, as of a projected GAN."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    head = nn.Conv2d(4, 1, 3)
    critic = rivals.Critic(nn.Sequential(backbone, head), penalties=[rivals.r1(0.1)])
    before, head_before = copy.deepcopy(backbone.state_dict()), head.weight.detach().clone()
    model = Autoencoder()
    train(critic, 2, model)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    assert not any(weight.requires_grad for weight in backbone.parameters())
    assert not torch.equal(head.weight, head_before)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("of_critic", "of_images"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float64", "float32")]
)
def test_images_and_a_critic_of_other_precisions(of_critic, of_images, batch_norm):
    of_critic, of_images = getattr(torch, of_critic), getattr(torch, of_images)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if batch_norm else nn.ReLU(), nn.Conv2d(4, 1, 3))
    critic = rivals.Critic(net.to(of_critic), penalties=[rivals.wgan_gp(1.0)])
    fake = images(seed=1).to(of_images).requires_grad_()
    critic.loss(fake).backward()
    assert fake.grad.isfinite().all()
    assert critic.learn(images().to(of_images), fake)["loss/discriminator"].isfinite()
    mixed = critic.learn(images(), images(seed=1).to(of_images))
    assert mixed["loss/discriminator"].isfinite()


class Drawn(nn.Module):
    """An augmentation that keeps what it draws."""

    def __init__(self):
        super().__init__()
        self.draws = []

    def forward(self, x, clock=None):
        self.draws.append(float(torch.rand(())))
        return x


def test_the_models_turns_are_augmented_anew_and_alike_when_resumed():
    def draws_of_loss(critic, steps):
        found = []
        for seed in steps:
            critic.loss(images(seed=seed).requires_grad_(), real=images()).backward()
            found.append(augment.draws[-1])
            critic.learn(images(), images(seed=seed))
        return found

    augment = Drawn()
    critic = rivals.Critic(patches(), augment=augment)
    before = torch.random.get_rng_state()
    found = draws_of_loss(critic, range(4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(set(found)) == 4 and len(set(augment.draws)) == len(augment.draws)
    again = rivals.Critic(patches(), augment=augment)
    draws_of_loss(again, range(2))
    resumed = rivals.Critic(patches(), augment=augment)
    resumed.load_state_dict(again.state_dict())
    torch.rand(3)  # what the user's own loop draws does not matter
    assert draws_of_loss(resumed, range(2, 4)) == found[2:]


def test_validation_leaves_batch_norm_and_drops_nothing():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 3))
    critic = rivals.Critic(net)
    critic.learn(images(), images(seed=1))
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        assert critic.loss(images(seed=1)) == critic.loss(images(seed=1))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(part.training for part in net.modules())


def test_a_turn_keeps_no_graph_of_the_model():
    critic, model = rivals.Critic(patches()), Autoencoder()
    y = model(images())
    alive = weakref.ref(y)
    critic.learn(images(), y)
    del y
    gc.collect()
    assert alive() is None


def test_validation_leaves_a_critic_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3))
    critic = rivals.Critic(net)
    net.eval()
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        critic.loss(images())
    assert not net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_loss_leaves_your_random_state_as_it_is():
    critic = rivals.Critic(patches(), augment=lambda x, clock: x + 0.1 * torch.randn_like(x))
    torch.manual_seed(5)
    critic.loss(images())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_the_averages_of_lecam_are_saved(tmp_path):
    def make():
        return rivals.Critic(patches(), penalties=[lecam(0.1, LeCam())])

    critic, other = make(), make()
    critic.learn(images(), images(seed=1))
    critic.save(tmp_path / "critic.safetensors")
    other.load(tmp_path / "critic.safetensors")
    values = [each.learn(images(seed=2), images(seed=3)) for each in (critic, other)]
    assert float(values[0]["penalty/lecam"]) == pytest.approx(float(values[1]["penalty/lecam"]), rel=1e-5)
    fresh = make()
    fresh.load_state_dict({**critic.state_dict(), **{k: v for k, v in make().state_dict().items() if "lecam" in k}})
    begun = fresh.learn(images(seed=2), images(seed=3))["penalty/lecam"]
    assert float(begun) != pytest.approx(float(values[0]["penalty/lecam"]), rel=1e-3)


def test_a_state_of_another_loss_is_refused(tmp_path):
    rivals.Critic(patches(), "hinge").save(tmp_path / "critic.safetensors")
    with pytest.raises(UserError, match="loss hinge, and this one has wasserstein"):
        rivals.Critic(patches(), "wasserstein").load(tmp_path / "critic.safetensors")


def test_what_the_adaptive_weight_cannot_compare_is_one_line():
    critic, model = rivals.Critic(patches()), Autoencoder()
    y = model(images())
    with pytest.raises(UserError, match="the adaptive weight needs a scalar"):
        critic.loss(y, reconstruction=(y - images()).abs().mean((1, 2, 3)), last_layer=model.last.weight)
    with pytest.raises(UserError, match="which the losses do not pass through"):
        critic.loss(y, reconstruction=y.mean(), last_layer=nn.Parameter(torch.zeros(3)))


def test_labels_reach_a_conditional_critic():
    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.embed = patches(), nn.Embedding(3, 1)

        def forward(self, x, labels):
            return self.net(x).mean((1, 2, 3)) + self.embed(labels)[:, 0]

    critic, labels = rivals.Critic(Conditional(), penalties=[rivals.r1(0.1)]), torch.arange(6) % 3
    values = critic.learn(images(), images(seed=1), labels)
    assert values["loss/discriminator"].isfinite() and critic.loss(images(), labels=labels).isfinite()


def test_a_critic_that_was_saved_continues_with_the_same_weights(tmp_path):
    whole = rivals.Critic(patches(), penalties=[rivals.r1(0.1, every=2)], start="12 images")
    model = train(whole, 5)
    whole.save(tmp_path / "critic.safetensors")
    other = rivals.Critic(patches(), penalties=[rivals.r1(0.1, every=2)], start="12 images")
    other.load(tmp_path / "critic.safetensors")
    models = [copy.deepcopy(model), copy.deepcopy(model)]
    for critic, each in zip((whole, other), models, strict=True):
        train(critic, 3, each, seed=50)
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), other.net.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in models), strict=True))


def test_the_callers_random_state_is_left_alone():
    critic = rivals.Critic(patches(), penalties=[rivals.wgan_gp(1.0)])
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    critic.learn(images(), images(seed=1))
    assert torch.equal(torch.rand(3), wanted)


def test_a_critic_that_wins_warns_once_and_lists_the_alarm():
    critic = rivals.Critic(patches(), optimizer=rivals.adam(1e-2))
    x, y = images(64), images(64, seed=1) * 0.2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(320):
            critic.loss(y)
            critic.learn(x, y)
    assert [each.category for each in caught] == [CriticWarning]
    assert "discriminator wins" in str(caught[0].message)
    assert [alarm["alarm"] for alarm in critic.alarms] == ["discriminator-wins"]


def test_a_loss_that_is_not_finite_is_told():
    critic = rivals.Critic(patches())
    with pytest.raises(TrainingFailure, match=r"discriminator's loss.* is not finite"):
        critic.learn(images(), images() * torch.nan)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: rivals.Critic(patches(), "hing"), "did you mean hinge"),
        (lambda: rivals.Critic(patches(), start="2 epochs"), "not the start of the critic: write N images or steps, N"),
        (lambda: rivals.Critic(patches(), weight="0 -> 1 in 3 hours"), "the length of '.*': write N images, N above"),
        (lambda: rivals.Critic(patches(), weight="slow"), "'slow' is not a schedule: .* START -> END in N images, as"),
        (lambda: rivals.Critic(patches()).learn(images(), images(5)), r"\(6, 3, 8, 8\), the generated ones \(5"),
        (lambda: rivals.Critic(patches()).loss(images(), reconstruction=torch.ones(())), "last_layer=WEIGHT"),
        (lambda: rivals.Critic(patches(), "relativistic").loss(images()), "compares pairs"),
        (lambda: rivals.Critic(patches()).load_state_dict({}), "has no 'waited'"),
        (
            lambda: rivals.Critic(nn.Conv2d(3, 1, 1)).load_state_dict(rivals.Critic(patches()).state_dict()),
            "of another run",
        ),
    ],
)
def test_wrong_use_is_one_line(act, says):
    with pytest.raises(UserError, match=says) as raised:
        act()
    assert "\n" not in str(raised.value)


def test_its_clock_counts_images_also_of_smaller_batches():
    """The last batch of an epoch is often smaller: schedules must not fall back."""
    seen = []
    spy = Penalty("spy", Schedule(1.0, 1.0), lambda s: seen.append(s.clock.images) or s.real.sum() * 0)
    critic = rivals.Critic(patches(), penalties=[spy])
    for n in (6, 6, 2, 6):
        critic.learn(images(n), images(n, seed=1))
    assert seen == [0, 6, 12, 14]


@pytest.mark.parametrize(
    "options",
    [
        {"weight": rivals.Schedule.parse("0 -> 1 in 10 minutes")},
        {"optimizer": rivals.adam("1e-3 -> 1e-4 in 2 hours")},
        {"penalties": [rivals.r1("1 -> 0.1 in 5 minutes")]},
    ],
)
def test_schedules_by_the_clock_are_refused(options):
    with pytest.raises(UserError, match="counts minutes, and a critic counts images"):
        rivals.Critic(patches(), **options)


def test_a_network_that_says_so_sees_real_and_generated_images_apart():
    class Stats(nn.Module):
        uses_batch_stats = True

        def __init__(self):
            super().__init__()
            self.linear, self.sizes = nn.Linear(192, 1), []

        def forward(self, x):
            self.sizes.append(len(x))
            return self.linear(x.flatten(1))[:, 0] + x.std()

    net = Stats()
    rivals.Critic(net).learn(images(), images(seed=1))
    assert net.sizes == [6, 6]


@pytest.mark.parametrize("dropout", [nn.Dropout(0.3), nn.Dropout2d(0.3), nn.AlphaDropout(0.3)])
@pytest.mark.parametrize("penalty", [rivals.fd_r1, rivals.fd_r2])
def test_finite_differences_of_a_network_with_dropout_are_refused(penalty, dropout):
    with pytest.raises(UserError, match=r"drops 30% of its values at random in each: take r[12]"):
        rivals.Critic(nn.Sequential(patches(), dropout), penalties=[penalty(0.1)])
    rivals.Critic(nn.Sequential(patches(), nn.Dropout(0.0)), penalties=[penalty(0.1)])


def test_in_validation_the_adaptive_weight_is_0_and_a_frozen_layer_is_refused():
    critic, model, x = rivals.Critic(patches()), Autoencoder(), images()
    with torch.no_grad():
        y = model(x)
        assert critic.loss(y, reconstruction=(y - x).abs().mean(), last_layer=model.last.weight) == 0
        assert critic.loss(y) != 0
    model.last.weight.requires_grad_(False)
    y = model(x)
    with pytest.raises(UserError, match="last_layer, which is frozen"):
        critic.loss(y, reconstruction=(y - x).abs().mean(), last_layer=model.last.weight)


def test_its_alarms_speak_python():
    assert {*ADVICE} <= {*health_monitor.ADVICE}
    assert not any("--" in remedy for _, remedy in ADVICE.values())
