"""The batch that stays full, and the streams that belong to images."""

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.base.rng import streams


@dataclass
class Counting(Rows):
    left: Tensor


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)), max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
)
@settings(max_examples=100, deadline=None)
def test_active_batch_stays_full_until_the_queue_is_empty(points, batch_size, trials):
    """Each index has a length of its trials, a trial in which it is fooled if it has that many, and an image."""
    lengths = [length for length, _, _ in points]
    fooled_at = [due for _, due, _ in points]
    x = torch.tensor([[float(image)] for _, _, image in points]).view(-1, 1)
    fooled = torch.zeros(len(points), dtype=torch.bool)
    unmet = {(i, trial): lengths[i] for i in range(len(points)) for trial in range(min(trials, fooled_at[i]))}

    def init_rows(who, trial):
        x_adv = x[who] + trial[:, None]
        left = torch.tensor([lengths[i] for i in who.tolist()])
        return Counting(who, trial, x[who], x_adv, who, None, left)

    def step(rows):
        assert len(rows) == min(batch_size, len({index for index, _ in unmet}))
        assert len(set(rows.index.tolist())) == len(rows)
        assert torch.equal(rows.x, x[rows.index])
        assert torch.equal(rows.x_adv, rows.x + rows.trial[:, None])
        rows.left = rows.left - 1
        for index, trial, left in zip(*(v.tolist() for v in (rows.index, rows.trial, rows.left)), strict=True):
            assert unmet[index, trial] == left + 1
            unmet[index, trial] = left
            if left == 0:
                del unmet[index, trial]
                fooled[index] = trial + 1 == fooled_at[index]
        return rows.left == 0

    ActiveBatch(init_rows, step, trials).run(torch.arange(len(points)), batch_size, lambda who: fooled[who])
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
