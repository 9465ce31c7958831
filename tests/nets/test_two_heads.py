"""A discriminator with a class head."""

import pytest
import torch

from rivals.nets.two_heads import ClassHead, TwoHeadedDiscriminator


@pytest.mark.parametrize("kind", ["cnn", "resnet"])
def test_the_classifier_cut_from_it_is_its_class_head(kind):
    torch.manual_seed(0)
    net = TwoHeadedDiscriminator(kind, size="12x8", channels=1, classes=3, widths=(4,)).eval()
    x = torch.rand(5, 1, 8, 12)
    alone = net.classifier()
    assert alone.spec["classes"] == 3 and not alone.training
    assert torch.allclose(alone(x), net.class_logits(x), atol=1e-6)
    assert torch.equal(ClassHead(net)(x), net.class_logits(x))
    assert net(x * 2 - 1, torch.zeros(5, dtype=torch.int64)).shape == (5,)
    assert net.uses_batch_stats == (kind == "resnet")
    with torch.no_grad():
        net.net.head[-1].bias.add_(1) if kind == "cnn" else net.net.head.bias.add_(1)
    assert not torch.allclose(alone(x), net.class_logits(x))  # a copy
