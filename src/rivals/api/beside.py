"""What every training leaves at its end: what the generator draws, beside the closest training images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rivals.reports.run import Run

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.play import Moment

SHEET = "nearest.png"
SHOWN, NEAREST = 10, 5  # generated images on the sheet, and real ones beside each, as `rivals score` has them
SPEED = 100e6  # bytes of images that are searched in a second, on one slow core
SHARE = 0.05  # of a run's time that the search may cost


def neighbours(run: Run, images: ImageSet, sheet: int, seed: int) -> Callable[[Any, Moment], None]:
    """What draws the sheet of a finished generator, by pixels: an extractor would have to look at all images first.

    The images are the first of the ``sheet`` ones that the sample sheets show. All training images are searched; where
    that would take more than a twentieth of what the run took, there is no sheet.

    Args:
        run: Where the sheet goes, with an entry about it.
        images: All that the generator was trained on.
        sheet: Images on a sample sheet.
        seed: The run's.
    """

    def draw(generator: Any, end: Moment) -> None:
        import torch

        from rivals.metrics.neighbours import nearest_images
        from rivals.reports import neighbours
        from rivals.reports import sheet as sheets

        if images.images.nbytes / SPEED > SHARE * end.seconds:
            return
        count = min(SHOWN, sheet)
        labels = torch.arange(count) % generator.classes if generator.classes else None
        drawn = generator.draw(generator.latents(sheet, seed)[:count], labels)
        k = min(NEAREST, len(images))
        who = nearest_images(torch.from_numpy(images.images), drawn, k).indices.numpy()
        sheets.save_png(neighbours.picture(drawn.numpy(), images.images[who]), run.folder / SHEET)
        run.update(neighbours={"sheet": SHEET, "by": "pixels", "drawn": count, "n": len(images)})

    return draw
