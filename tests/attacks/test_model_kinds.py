"""Models as users have them: scripted and frozen ones, half precision, other outputs, masked classes, one logit."""

import copy
import itertools
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers.attack_norms import ball_of, norms_of, short
from helpers.models import conv_model
from rivals import L0, L1, L2, Linf, UserError, certify, evaluate
from rivals.attacks import ATTACKS, apgd, autoattack, fab, freeze, pgd, sparse_rs, square
from rivals.attacks.autoattack import GRADIENT_FREE
from rivals.attacks.input_checks import OneLogitWarning


def small_net(classes=5, dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, classes)
        return nn.Sequential(*layers).to(dtype).eval(), torch.rand(6, 3, 6, 6).to(dtype)


MAKERS = {
    "scripted": lambda net, x: torch.jit.script(net),
    "traced": lambda net, x: torch.jit.trace(net, x),
    "scripted and frozen": lambda net, x: torch.jit.freeze(torch.jit.script(net)),
    "traced and frozen": lambda net, x: torch.jit.freeze(torch.jit.trace(net, x)),
    "exported": lambda net, x: torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module(),
    "a graph": lambda net, x: torch.fx.symbolic_trace(net),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", MAKERS)
def test_compiled_kinds_of_a_model_are_attacked_as_the_model(kind):
    net, x = small_net()
    y = net(x).argmax(1)
    made = MAKERS[kind](net, x)
    torch.testing.assert_close(pgd(made, x, y, L2(0.5), steps=3), pgd(net, x, y, L2(0.5), steps=3), rtol=0, atol=1e-4)
    inside = nn.Sequential(made)
    inside.training = True
    assert evaluate(inside, (x, y), L2(0.5), attack="fgsm,pgd(steps=3)", quiet=True).clean.value == 1
    assert inside.training


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", [Linf(0.05), L2(0.5), L1(2.0), L0(5)], ids=str)
def test_half_precision_stays_in_ball_and_box(norm, dtype):
    net, x = small_net(dtype=dtype)
    y = net(x).argmax(1)
    for name, attack in ATTACKS.items():
        if isinstance(norm, norms_of(name)):
            x_adv = attack(net, x, y, norm, **short(name))
            assert x_adv.dtype == dtype, name
            assert norm.contains(x_adv, x).all(), name


class Asked(nn.Module):
    """A model that keeps the images it is asked about."""

    def __init__(self, net):
        super().__init__()
        self.net, self.images = net, []

    def forward(self, x):
        self.images.append(x.detach())
        return self.net(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_random_search_tries_places_everywhere_in_any_precision(dtype):
    x = torch.full((1, 1, 1, 3000), 0.5, dtype=dtype)
    net = Asked(nn.Sequential(nn.Flatten(), nn.Linear(3000, 2, dtype=dtype)))
    with torch.no_grad():
        net.net[1].weight.zero_()  # nothing is better than anything else, so each proposal changes the first state
        net.net[1].bias.copy_(torch.tensor([3.0, -1.0]))
    sparse_rs(net, x, torch.zeros(1, dtype=torch.int64), L0(1), queries=600)
    changed = (torch.cat(net.images).flatten(1) != 0.5).any(0)
    # 600 of 3,000 places drawn at random are 544 different ones; with 256 random numbers they would be 256.
    assert 450 < int(changed.sum()) < 600


def test_the_attacks_listed_as_gradient_free_are_those_that_take_no_gradient():
    net, x = small_net()
    y = net(x).argmax(1)
    without = set()
    with freeze(net, x) as frozen:
        for name, attack in ATTACKS.items():
            before = frozen.backwards
            attack(frozen, x, y, ball_of(name, 0.01), **short(name))
            if frozen.backwards == before:
                without.add(name)
    assert without == set(GRADIENT_FREE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_evaluated_and_certified(dtype, tmp_path):
    net, x = small_net(dtype=dtype)
    y = net(x).argmax(1)
    report = evaluate(net, (x, y), Linf(0.05), attack="pgd(steps=5)", out=tmp_path / "r", quiet=True)
    assert report.clean.value == 1
    assert certify(net, (x[:2], y[:2]), sigma=0.05, samples=20, quiet=True).n == 2
    assert evaluate(net.float(), (x, y), Linf(0.05), attack="pgd(steps=5)", quiet=True).n == 6


class Answering(nn.Module):
    """A model that returns its logits in some package."""

    def __init__(self, net, pack):
        super().__init__()
        self.net, self.pack = net, pack

    def forward(self, x):
        return self.pack(self.net(x))


PACKAGES = {
    "an object": lambda z: SimpleNamespace(loss=None, logits=z),
    "a named tuple": lambda z: namedtuple("Out", "logits aux")(z, z * 2),
    "a tuple": lambda z: (z, z * 0),
    "a list": lambda z: [z],
    "a dictionary": lambda z: {"features": z * 0, "logits": z},
    "a dictionary of one": lambda z: {"out": z},
    "a tuple of a dictionary": lambda z: ({"logits": z}, 3),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_logits_are_found_in_what_the_model_returns(package):
    net, x = small_net()
    y = net(x).argmax(1)
    packed = Answering(net, PACKAGES[package])
    for attack in (pgd, apgd, fab):
        torch.testing.assert_close(attack(packed, x, y, Linf(0.05), steps=2), attack(net, x, y, Linf(0.05), steps=2))
    told, plain = (
        evaluate(model, (x, y), Linf(0.05), attack="pgd(steps=3)", eot=2, quiet=True) for model in (packed, net)
    )
    assert (told.clean, told.robust) == (plain.clean, plain.robust)
    assert certify(packed, (x[:1], y[:1]), sigma=0.1, samples=20, quiet=True).n == 1


NOTHING_FOUND = {
    "text": (lambda z: "cat", "returns a str"),
    "nothing": (lambda z: None, "returns a NoneType"),
    "an empty tuple": (lambda z: (), "returns a tuple"),
    "a dictionary without logits": (lambda z: {"a": z, "b": z}, "a dictionary of a, b"),
    "maps": (lambda z: z[:, :, None, None], "returns the shape"),
}


@pytest.mark.parametrize("case", NOTHING_FOUND)
def test_what_holds_no_logits_is_refused_in_one_line(case):
    pack, says = NOTHING_FOUND[case]
    net, x = small_net()
    with pytest.raises(UserError, match=says) as caught:
        pgd(Answering(net, pack), x, torch.zeros(6, dtype=torch.int64), Linf(0.05))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flat", [True, False])
def test_one_logit_stands_for_two_classes_and_that_is_said(flat):
    net, x = small_net(1)
    net[-1].bias.data -= net(x).median()
    binary = Answering(net, lambda z: z[:, 0] if flat else z)
    y = (net(x)[:, 0] > 0).long()
    with pytest.warns(OneLogitWarning, match="above 0 it is read as class 1"):
        x_adv = pgd(binary, x, y, Linf(0.3), steps=10)
    assert ((net(x_adv)[:, 0] > 0).long() != y).any()
    report = evaluate(binary, (x, y), Linf(0.3), attack="autoattack-swift", quiet=True)
    assert report.clean.value == 1 and report.robust.value < 1
    assert any("one logit per image" in note for note in report.notes)


class Masked(nn.Module):
    """Some classes can never be predicted."""

    def __init__(self, net, masked):
        super().__init__()
        self.net = net
        self.register_buffer("masked", masked)

    def forward(self, x):
        return self.net(x).masked_fill(self.masked, -torch.inf)


@pytest.mark.parametrize("left", [2, 4])
def test_masked_classes_are_never_aimed_at_and_nothing_becomes_nan(left):
    net, x, _ = conv_model(6)
    model = Masked(net, torch.arange(6) >= left)
    y = model(x).argmax(1)
    few = copy.deepcopy(net)
    few[-1] = nn.Linear(216, left).double()
    few[-1].load_state_dict({key: value[:left] for key, value in net[-1].state_dict().items()})
    for ball, loss in itertools.product((Linf(0.02), L2(0.3)), ("ce", "dlr", "margin")):
        found, expected = (apgd(each, x, y, ball, steps=10, loss=loss) for each in (model, few))
        assert found.isfinite().all()
        if loss != "dlr":  # whose ratio counts classes
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    x, y = x[:4], y[:4]
    for attack in (fab, autoattack):
        options = {"stages": ["apgd-ce", "apgd-t", "fab-t"]} if attack is autoattack else {"steps": 5}
        found, expected = (attack(each, x, y, L2(0.4), **options) for each in (model, few))
        assert L2(0.4).contains(found, x).all()
        fooled, known = (model(each).argmax(1) != y for each in (found, expected))
        assert abs(int(fooled.sum()) - int(known.sum())) <= 1
    assert square(model, x, y, Linf(0.02), queries=5).isfinite().all()
    assert certify(model, (x[:1], y[:1]), sigma=0.1, samples=20, steps=2, quiet=True).n == 1


def test_masked_classes_do_not_hinder_folding():
    net, x = small_net(4)
    with freeze(Masked(net, torch.tensor([False, False, True, False])), x) as frozen:
        assert frozen.folded
