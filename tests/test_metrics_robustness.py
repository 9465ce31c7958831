"""Intervals, tallies, the judge, and the reading of the signs of masked gradients."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from rivals.base.balls import L1, L2, Linf
from rivals.metrics.masking import (
    ADVICE,
    BLIND,
    NOISE,
    ONE,
    STEPS,
    Signs,
    blind_parts_beat,
    look,
    more,
    read,
    whole_range,
)
from rivals.metrics.robustness import CLEAN, Share, Tally, predict, verify


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_wilson(counts):
    count, n = counts
    expected = binomtest(count, n).proportion_ci(0.95, method="wilson")
    assert Share(count, n).interval == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_share_of_none_and_of_nothing():
    assert Share(0, 10).interval[0] == 0
    assert Share(10, 10).interval[1] == 1
    assert Share(0, 0).interval == (0, 1)
    assert math.isnan(Share(0, 0).value)
    assert json.loads(json.dumps(Share(0, 0).as_dict()))["value"] is None
    assert str(Share(1, 4)) == "25.0 % (4.6 to 69.9)"


def step(part, level, felled, whole=(), **counts):
    zero = {"attacked": 0, "unverified": 0, "forwards": 0, "backwards": 0, "part_seconds": 0.0}
    return {"part": part, "level": level, "felled": list(felled), "whole": list(whole), **zero, **counts}


def told(tally, **changes):
    facts = {"alarms": [], "notes": [], "protocol": {"attack": "a", "norm": "Linf"}, "seconds": 1.0}
    return tally.report(["cat", "dog"], **facts | changes)


def test_a_tally_tells_what_its_steps_did():
    tally = Tally(np.array([0, 1, 0, 1, 0, 1]), [0.1, 0.2])
    tally.take(step(CLEAN, 0, [0], [0]))
    tally.take(step("one", 1, [1, 2], [1], attacked=5, forwards=10, backwards=5, part_seconds=0.5))
    assert tally.standing(0, 6).tolist() == [3, 4, 5]
    assert tally.standing(2, 5).tolist() == [3, 4]
    tally.take(step("two", 1, [], attacked=3, unverified=1, forwards=30))
    tally.take(step("one", 2, [3], [3], attacked=3, forwards=6, backwards=3, part_seconds=0.25))
    tally.done = 6
    report = told(tally)
    assert [(eps, share.count, share.of) for eps, share in report.curve] == [(0.0, 5, 6), (0.1, 3, 6), (0.2, 2, 6)]
    assert (report.clean.count, report.robust.count, report.rounded.count) == (5, 2, 3)
    assert [(each.name, each.clean.count, each.robust.count, each.clean.of) for each in report.classes] == [
        ("cat", 2, 1, 3),
        ("dog", 3, 1, 3),
    ]
    one = report.parts["one"]
    assert (one.attacked, one.felled, one.forwards, one.backwards, one.seconds) == (8, 3, 16, 8, 0.75)
    assert report.parts["two"].unverified == 1
    assert json.loads(json.dumps(report.as_dict()))["robust"]["count"] == 2
    for text in ("clean accuracy", "83.3 %", "felled 3 of 8", "1 not verified", "no sign of gradient masking"):
        assert text in str(report)


def test_what_is_not_through_with_everything_does_not_count():
    tally = Tally(np.zeros(6, np.int64), [0.1])
    tally.take(step(CLEAN, 0, [0, 5], [0, 5]))
    tally.done = 3
    report = told(tally)
    assert (report.n, report.clean.count) == (3, 2)


def test_the_verdict_tells_masking_from_doubt_and_silence():
    tally = Tally(np.zeros(2, np.int64), [0.1])
    tally.done = 2
    masked, doubt = {"alarm": "zero-gradient", "says": "so flat"}, {"alarm": "randomised", "says": "so random"}
    assert told(tally, alarms=[masked]).verdict == "this looks like gradient masking: so flat"
    assert told(tally, alarms=[masked, doubt]).verdict.endswith("so flat (and 1 more sign)")
    assert told(tally, alarms=[doubt]).verdict == "read these numbers with care: so random"
    assert "no alarms were asked for" in told(tally, protocol={"alarms": False}).verdict


def bright(x):
    """Class 1 where the mean is above a half."""
    mean = x.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_the_judge_believes_no_attack():
    x, y = torch.full((5, 1, 2, 2), 0.45), torch.zeros(5, dtype=torch.int64)
    x_adv = x.clone()
    x_adv[0] += 0.1  # fools
    x_adv[1] += 0.04  # does not
    x_adv[2] += 0.3  # fools, but outside of the ball
    x_adv[3] = torch.nan
    x_adv[4, :, 0] += 0.1  # the mean is exactly a half: a tie goes to the first class
    fooled, whole, said = verify(bright, x, y, x_adv, Linf(0.1), batch_size=4)
    assert fooled.tolist() == whole.tolist() == [True, False, False, False, False]
    assert said.tolist() == [1, 0, -1, -1, 0]


def test_what_rounding_undoes_is_told():
    """The border lies at 127.4 steps: 127.49 is beyond it, and is rounded back to 127."""
    x, y = torch.full((2, 1, 2, 2), 0.45), torch.zeros(2, dtype=torch.int64)
    answer = lambda x: torch.stack([0 * x.flatten(1)[:, 0], x.flatten(1).mean(1) - 127.4 / 255], 1)  # noqa: E731
    x_adv = (torch.tensor([127.49, 127.51]) / 255).view(2, 1, 1, 1).repeat(1, 1, 2, 2)
    fooled, whole, _ = verify(answer, x, y, x_adv, Linf(0.1), batch_size=8)
    assert fooled.tolist() == [True, True]
    assert whole.tolist() == [False, True]


def test_a_randomised_model_is_judged_by_the_majority():
    turns = iter([0, 1, 1, 0, 1] * 2)

    def fickle(x):
        return torch.nn.functional.one_hot(torch.full((len(x),), next(turns)), 2).float()

    said, logits = predict(fickle, torch.zeros(3, 1), batch_size=8, draws=5)
    assert said.tolist() == [1, 1, 1]
    assert torch.allclose(logits, torch.tensor([0.4, 0.6]).expand(3, 2))


def test_equally_many_votes_go_to_the_higher_mean_whatever_its_number():
    """Ten passes, five for each class; the one that is said the more surely wins."""
    for sure in (0, 1):
        turns = iter([sure, 1 - sure] * 5)

        def fickle(x, sure=sure, turns=turns):
            turn = next(turns)
            said = torch.nn.functional.one_hot(torch.full((len(x),), turn), 2)
            return said * (3.0 if turn == sure else 1.0)

        assert predict(fickle, torch.zeros(3, 1), batch_size=8, draws=10)[0].tolist() == [sure] * 3


def test_what_is_no_number_is_still_answered():
    said, logits = predict(lambda x: x, torch.tensor([[0.0, math.nan], [1.0, 2.0]]), batch_size=8)
    assert said.tolist() == [1, 1] and logits[0].isnan().any()


def fell(*places, n=40):
    fallen = torch.zeros(n, dtype=torch.bool)
    fallen[list(places)] = True
    return fallen


def signs(strong, *, wider=None, dead=(), n=40, **others):
    radii = wider or [(0.1, strong), (1.0, fell(*range(n)))]
    return Signs({STEPS: strong, **others}, radii, fell(*dead))


def test_a_healthy_model_raises_no_alarm():
    strong = fell(*range(30))
    healthy = signs(strong, **{ONE: fell(*range(20)), NOISE: fell(1), BLIND: fell(*range(28), 35)}, dead=[0])
    assert read(healthy) == []


@pytest.mark.parametrize(
    ("alarm", "found"),
    [
        ("one-step-beats-many", signs(fell(1, 2), **{ONE: fell(*range(9))})),
        ("noise-beats-gradient", signs(fell(), **{NOISE: fell(*range(5))})),
        ("black-box-beats-gradient", signs(fell(0), **{BLIND: fell(*range(1, 9))})),
        ("zero-gradient", signs(fell(), dead=range(5))),
        ("wider-fells-fewer", signs(fell(*range(9)), wider=[(0.1, fell(*range(9))), (0.2, fell(0)), (1.0, ~fell())])),
        ("unbounded-leaves-some", signs(fell(), wider=[(0.1, fell()), (1.0, fell(*range(30)))])),
    ],
)
def test_each_sign_raises_its_alarm_alone(alarm, found):
    alarms = read(found)
    assert [each.alarm for each in alarms] == [alarm]
    assert alarms[0].as_dict()["remedy"] == ADVICE[alarm]


def test_a_sign_by_luck_is_none():
    assert not more(fell(0, 1, 2, 3), fell())  # 1 in 16
    assert more(fell(0, 1, 2, 3, 4), fell())  # 1 in 32
    assert not more(fell(*range(12)), fell(*range(20, 29)))
    assert not more(fell(), fell())


def test_square_after_gradients_is_a_sign_only_where_it_fells_many():
    assert blind_parts_beat(2, 50, 100) == []
    assert blind_parts_beat(20, 300, 1000) == []
    (alarm,) = blind_parts_beat(21, 300, 1000)
    assert "fells 21 of 1000 images more" in alarm.says


def test_looking_asks_each_attack_once_and_the_strong_one_at_every_radius():
    x, y, asked = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64), []

    def attack(x, y, ball):
        asked.append((len(x), torch.as_tensor(ball.eps).flatten().tolist()))
        return x

    found = look(x, y, Linf(0.3), {STEPS: attack, ONE: attack}, lambda x, y: y.bool(), torch.ones_like(x))
    assert asked[0] == asked[1] == (3, [pytest.approx(0.3)])
    assert asked[2][0] == 9
    assert asked[2][1] == pytest.approx([0.3] * 3 + [0.6] * 3 + [1.0] * 3)
    assert [eps for eps, _ in found.wider] == pytest.approx([0.3, 0.6, 1.0])
    assert found.as_dict()["zero_gradients"] == 0


def test_the_whole_range_of_images():
    x = torch.zeros(1, 3, 4, 4)
    assert whole_range(Linf(0.1), x) == 1
    assert whole_range(L2(0.1), x) == pytest.approx(math.sqrt(48))
    assert whole_range(L1(0.1, bounds=(-1.0, 1.0)), x) == 96
