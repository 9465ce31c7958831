"""Attacks in several threads at once: on one model, on models that share layers, and beside threads without attacks."""

import contextlib
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from helpers.model_states import same, setting, state
from rivals import Linf, evaluate
from rivals.attacks import apgd, fab, fgsm, freeze, pgd, square
from rivals.nets.wrappers import EOTModel, NormalizedModel

BALL = Linf(0.05)
THREADS = 6


def attack(model, x, y):
    return torch.cat(
        [
            fgsm(model, x, y, BALL),
            pgd(model, x, y, BALL, steps=2, seed=1),
            apgd(model, x, y, BALL, steps=2),
            fab(model, x, y, BALL, steps=1, refine_steps=1),
            square(model, x, y, BALL, queries=3),
        ]
    )


def together(tasks):
    """The results of functions that all start at the same moment, a thread each."""
    start = threading.Barrier(len(tasks))
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [
            future.result() for future in [pool.submit(lambda task=task: (start.wait(), task())[1]) for task in tasks]
        ]


@contextlib.contextmanager
def bystander(work):
    """A thread that repeats ``work`` until the end, and must not have failed."""
    done, failures, rounds = threading.Event(), [], []

    def repeat():
        while not done.is_set():
            try:
                work()
            except Exception as error:  # of any kind: it is reported below
                failures.append(error)
                return
            rounds.append(1)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert not failures
    assert rounds


def test_threads_that_share_a_model_get_what_one_alone_gets_and_leave_it_as_it_was():
    model, x, y = setting()
    before = state(model)
    expected = attack(model, x, y)
    for _ in range(2):
        assert all(torch.equal(found, expected) for found in together([lambda: attack(model, x, y)] * THREADS))
        assert same(state(model), before)


class Own(nn.Module):
    """Layers of its own kind, of a container, and a parameter used as it is: all that tracing has to intercept."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return (self.body(x) * self.scale).mean((2, 3))


def test_a_thread_that_trains_another_model_notices_nothing():
    model, x, y = setting()
    own, mine = Own().train(), torch.rand(4, 3, 6, 6)

    def train():
        loss = own(mine).square().sum()
        loss.backward()
        assert type(loss) is torch.Tensor
        assert own.scale.grad.isfinite().all()
        own.zero_grad()

    with bystander(train):
        together([lambda: attack(model, x, y)] * 4)
    assert own.training and own.body.training and own.scale.requires_grad


def test_a_thread_that_predicts_with_the_model_under_attack_gets_the_same_logits():
    model, x, y = setting()
    model.eval()
    expected = model(x).detach()

    def predict():
        assert torch.equal(model(x), expected)

    with bystander(predict):
        together([lambda: attack(model, x, y)] * 4)


def test_models_that_share_layers_are_restored_when_the_last_lets_go():
    model, x, y = setting()
    wrapped = [EOTModel(model, 2), NormalizedModel(model, [0.5] * 3, [0.5] * 3).eval(), nn.Sequential(model)]
    before = [state(each) for each in (model, *wrapped)]
    together([lambda each=each: attack(each, x, y) for each in (model, *wrapped) * 2])
    assert all(same(state(each), known) for each, known in zip((model, *wrapped), before, strict=True))


@pytest.mark.parametrize("first_out", [0, 1])
def test_a_model_stays_frozen_until_the_last_lets_go(first_out):
    model, x, _ = setting()
    before = state(model)
    stacks = [contextlib.ExitStack(), contextlib.ExitStack()]
    for stack, each in zip(stacks, (model, nn.Sequential(model)), strict=True):
        stack.enter_context(freeze(each, x))
    stacks[first_out].close()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    stacks[1 - first_out].close()
    assert same(state(model), before)


def test_a_thread_that_fails_leaves_the_model_to_the_others_and_then_as_it_was():
    model, x, y = setting()
    before = state(model)

    def fail():
        with pytest.raises(RuntimeError, match="on the way"), freeze(model, x):
            raise RuntimeError("on the way")

    together([fail, lambda: attack(model, x, y), fail, lambda: attack(model, x, y)])
    assert same(state(model), before)


def test_evaluations_in_threads_agree_and_leave_the_filters_of_warnings_alone():
    model, x, y = setting()
    before, filters = state(model), list(warnings.filters)

    def evaluated():
        return evaluate(model, (x, y), BALL, attack="fgsm,square_pgd(turns=1,queries=2,steps=2)", quiet=True).robust

    expected = evaluated()
    assert together([evaluated] * 4) == [expected] * 4
    assert same(state(model), before)
    assert warnings.filters == filters
