"""The batch that stays full, and the streams that belong to images."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rivals.attacks.standing import Rows, Storm
from rivals.base.seeds import streams


@dataclass
class Counting(Rows):
    left: Tensor


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)), max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_everyone_is_served_and_the_batch_is_full_while_anyone_waits(points, capacity, trials):
    """Each point has a length of its trials, a trial in which it falls if it is due that many, and an image."""
    lengths = [length for length, _, _ in points]
    falls = [fall for _, fall, _ in points]
    x = torch.tensor([[float(image)] for _, _, image in points]).view(-1, 1)
    fallen = torch.zeros(len(points), dtype=torch.bool)
    unmet = {(i, trial): lengths[i] for i in range(len(points)) for trial in range(min(trials, falls[i]))}

    def begin(who, trial):
        x_adv = x[who] + trial[:, None]
        left = torch.tensor([lengths[i] for i in who.tolist()])
        return Counting(who, trial, x[who], x_adv, who, None, left)

    def advance(rows):
        assert len(rows) == min(capacity, len({point for point, _ in unmet}))
        assert len(set(rows.point.tolist())) == len(rows)
        assert torch.equal(rows.x, x[rows.point])
        assert torch.equal(rows.x_adv, rows.x + rows.trial[:, None])
        rows.left = rows.left - 1
        for point, trial, left in zip(*(v.tolist() for v in (rows.point, rows.trial, rows.left)), strict=True):
            assert unmet[point, trial] == left + 1
            unmet[point, trial] = left
            if left == 0:
                del unmet[point, trial]
                fallen[point] = trial + 1 == falls[point]
        return rows.left == 0

    Storm(begin, advance, trials).run(torch.arange(len(points)), capacity, lambda who: fallen[who])
    assert not unmet


def test_streams_depend_on_the_image_the_seed_and_the_trial_alone():
    x = torch.rand(3, 2, 4, 4)
    x[2] = x[0]
    draw = lambda *args: [torch.rand(2, generator=g).tolist() for g in streams(*args)]  # noqa: E731
    first, second, copy = draw(x, [0, 0, 0], 7, "pgd")
    assert first == copy != second
    assert draw(x[1:2], [0], 7, "pgd") == [second]
    assert draw(x.to(memory_format=torch.channels_last), [0, 0, 0], 7, "pgd") == [first, second, copy]
    flat = x[:2].flatten(1)
    assert draw(flat.t().contiguous().t(), [0, 0], 7, "pgd") == draw(flat, [0, 0], 7, "pgd") == [first, second]
    others = [draw(x[:1], [1], 7, "pgd"), draw(x[:1], [0], 8, "pgd"), draw(x[:1], [0], 7, "apgd"), [first]]
    assert len({str(other) for other in others}) == 4
