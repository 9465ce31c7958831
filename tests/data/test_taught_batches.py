"""Batches labeled by a teacher, the surest images kept."""

import torch

from rivals.data.taught_batches import TaughtBatches


class Ramp:
    batch_size, micro_batches = 8, 2

    def draw(self, index, stream=0, part=0):
        first = 10 * index + 4 * part
        return torch.arange(first, first + 4, dtype=torch.uint8).view(4, 1, 1, 1), None


def test_the_surest_images_are_kept_in_their_order_with_the_labels_of_the_teacher():
    def teach(images):
        values = images.flatten().long()
        return values % 2, torch.tensor([3.0, 1.0, 2.0, 5.0])

    batches = TaughtBatches(Ramp(), teach, 4)
    images, labels = batches.draw(1, part=1)
    assert (batches.batch_size, batches.micro_batches) == (4, 2)
    assert images.flatten().tolist() == [14, 17]
    assert labels.tolist() == [0, 1]
