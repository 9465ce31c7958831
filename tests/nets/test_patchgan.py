"""PatchGAN: what a logit sees."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.nets.patchgan import PatchDiscriminator


@pytest.mark.parametrize(("widths", "field"), [((4, 4), 16), ((4, 4, 4), 34), ((4, 4, 4, 4), 70)])
def test_a_logit_sees_a_patch_of_the_published_size(widths, field):
    torch.manual_seed(0)
    net = PatchDiscriminator(1, widths).double()
    x = torch.zeros(1, 1, field + 40, field + 24, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    middle = logits.shape[2] // 2, logits.shape[3] // 2
    (grad,) = torch.autograd.grad(logits[0, 0, middle[0], middle[1]], x)
    rows, columns = grad[0, 0].abs().sum(1).nonzero()[:, 0], grad[0, 0].abs().sum(0).nonzero()[:, 0]
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == field


@pytest.mark.parametrize(("widths", "least"), [((2, 2), 6), ((2, 2, 2), 12), ((2, 2, 2, 2), 24)])
def test_images_that_leave_no_logit_are_refused(widths, least):
    net = PatchDiscriminator(1, widths)
    assert net(torch.zeros(1, 1, least, 2 * least)).shape[2] == 1
    with pytest.raises(UserError, match=f"40x{least - 1} px are halved to nothing.*{least} px or more"):
        net(torch.zeros(1, 1, least - 1, 40))


def test_too_few_widths_are_refused():
    with pytest.raises(UserError, match=r"\(8,\) make no PatchGAN"):
        PatchDiscriminator(1, (8,))
