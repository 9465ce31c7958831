"""PatchGAN: what a logit sees."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.nets.patchgan import PatchDiscriminator


@pytest.mark.parametrize(("widths", "field"), [((4, 4), 16), ((4, 4, 4), 34), ((4, 4, 4, 4), 70)])
def test_a_logit_sees_a_patch_of_the_published_size(widths, field):
    torch.manual_seed(0)
    net = PatchDiscriminator(1, widths).double()
    assert net.receptive_field == field
    x = torch.zeros(1, 1, field + 40, field + 24, dtype=torch.float64, requires_grad=True)
    logits = net(x)
    middle = logits.shape[2] // 2, logits.shape[3] // 2
    (grad,) = torch.autograd.grad(logits[0, 0, middle[0], middle[1]], x)
    rows, columns = grad[0, 0].abs().sum(1).nonzero()[:, 0], grad[0, 0].abs().sum(0).nonzero()[:, 0]
    assert rows[-1] - rows[0] + 1 == columns[-1] - columns[0] + 1 == field


def test_images_smaller_than_a_patch_and_too_few_widths_are_refused():
    with pytest.raises(UserError, match="40x33 px are smaller than a patch of 34"):
        PatchDiscriminator(1, (2, 2, 2))(torch.zeros(1, 1, 33, 40))
    with pytest.raises(UserError, match=r"\(8,\) make no PatchGAN"):
        PatchDiscriminator(1, (8,))
