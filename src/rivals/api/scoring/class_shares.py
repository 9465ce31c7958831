"""Classes of generated images: in the shares of the real images that they are compared with.

A conditional generator knows images given a class, not how frequent the classes are. If it is asked for all classes
alike and the data hold them in other shares, the distance of a perfect generator is large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.data.classes import match_classes
from rivals.data.imageset import ImageSet
from rivals.data.load import to_stderr

Counts = npt.NDArray[np.int64]

IN_TURN = "in turn"


def class_counts(generator: Any, images: ImageSet) -> tuple[Counts | None, str]:
    """How many images of each of the generator's classes there are, (K,), and for the protocol whose shares these are.

    Taken from the real images if these have two classes or more, matched by name where the generator knows its names;
    else from the images that it was trained on. None if neither tells: then all classes take turns.

    Raises:
        UserError: the real images have a class that the generator does not know.
    """
    about = getattr(generator, "about", {})
    names = list(about.get("classes") or [])
    if images.labels is not None and len(np.unique(images.labels)) > 1:
        if names:
            images = match_classes(images, names, "the generator", to_stderr)
        if len(images.classes) == generator.classes:
            assert images.labels is not None
            return np.bincount(images.labels, minlength=generator.classes), "as in the real images"
    trained_on = about.get("class_counts")
    if trained_on:
        return np.asarray(trained_on, np.int64), "as in the training images"
    return None, f"{IN_TURN}, as nothing tells how frequent they are"


def classes_by_share(n: int, counts: Counts) -> npt.NDArray[np.int64]:
    """The classes of n images, (n,): each image has the class that lags furthest behind its share, the first of equals.

    So the first k are those of k images; shares are kept as closely as whole numbers can, with no noise of a draw; and
    equal shares give 0, 1, 2, ... in turn.
    """
    shares = counts / counts.sum()
    classes, given = np.empty(n, np.int64), np.zeros(len(counts))
    for i in range(n):
        # Rounded, so that equal shares stay equal whatever the rounding of their products.
        classes[i] = c = int(np.argmax(np.round(shares * (i + 1) - given, 9)))
        given[c] += 1
    return classes
