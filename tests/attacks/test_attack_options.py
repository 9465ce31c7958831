"""Options that an attack does not have are refused in one line, whichever attack it is."""

import inspect

import pytest

from helpers.attack_norms import ball_of
from helpers.models import conv_model
from rivals import L1, L2, Linf, UserError, evaluate
from rivals.attacks import ATTACKS, augment, freeze, run_ensemble, square

CALLS = {name: attack for name, attack in ATTACKS.items() if name != "autoattack"} | {"augment": augment}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("typo", "meant"), [("sede", "seed"), ("batchsize", "batch_size"), ("target", "targets")])
def test_an_unknown_option_names_the_nearest(name, typo, meant):
    model, x, y = conv_model(n=2)
    around = () if name == "augment" else (ball_of(name),)
    with pytest.raises(UserError, match=rf"^unknown option of {name} '{typo}': did you mean .*\b{meant}\b.*\?$"):
        CALLS[name](model, x, y, *around, **{typo: 1})


@pytest.mark.parametrize(
    ("name", "typo", "meant"),
    [
        ("pgd", "stpes", "steps"),
        ("apgd", "n_target", "n_targets"),
        ("square", "query", "queries"),
        ("fab", "Beta", "beta"),
    ],
)
def test_an_attacks_own_options_are_among_the_nearest(name, typo, meant):
    model, x, y = conv_model(n=2)
    with pytest.raises(UserError, match=rf"did you mean .*\b{meant}\b"):
        ATTACKS[name](model, x, y, Linf(0.1), **{typo: 1})


def test_ensembles_refuse_them_too():
    model, x, y = conv_model(n=2)
    with pytest.raises(UserError, match="unknown option of autoattack 'verson': did you mean version"):
        ATTACKS["autoattack"](model, x, y, Linf(0.1), verson="swift")
    with freeze(model, x) as frozen, pytest.raises(UserError, match="unknown option of run_ensemble 'steps'"):
        next(run_ensemble(frozen, x, y, Linf(0.1), [], steps=3))


def test_attacks_keep_their_signatures_and_take_inputs_by_name():
    model, x, y = conv_model(n=2)
    assert list(inspect.signature(ATTACKS["pgd"]).parameters)[:5] == ["model", "x", "y", "ball", "steps"]
    ATTACKS["pgd"](model=model, x=x, y=y, ball=Linf(0.01), steps=1, seed=3)
    with pytest.raises(TypeError, match="missing"):
        ATTACKS["pgd"](model, x, y)


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), (" 0.5 ", 0.5), ("1e-3", 1e-3), ("1 / 4", 0.25)])
@pytest.mark.parametrize("norm", [Linf, L2, L1])
def test_radii_may_be_text(norm, text, value):
    model, x, y = conv_model(n=2)
    assert norm(text).eps == value
    found, expected = (ATTACKS["pgd"](model, x, y, norm(eps), steps=2) for eps in (text, value))
    assert found.equal(expected)


@pytest.mark.parametrize("text", ["8/0", "eight", "-1/255", "", "1/2/3"])
def test_text_that_is_no_radius_is_refused(text):
    with pytest.raises(UserError, match="is not a radius: write a number or a fraction"):
        Linf(text)


def test_an_attack_of_ones_own_may_ask_for_some_of_its_images_by_queries():
    model, x, y = conv_model(n=12)

    def adaptive(frozen, x, y, ball, **options):
        x_adv = x.clone()
        x_adv[:5] = square(frozen, x[:5], y[:5], Linf(0.2), queries=40)
        return x_adv

    report = evaluate(model, (x, y), Linf(0.2), attack=adaptive, alarms=False, quiet=True)
    assert report.robust.count < 12 and not report.queries
