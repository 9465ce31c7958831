"""The tab of translators: a picture of one's own, translated; or the held-out images that it was judged on."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from rivals.api.translation.input_image import TURNED_GRAY, read_input
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.reports.html import Html, join
from rivals.studio.html_parts import errors_as_notices, notice, picture_figure, ungrown
from rivals.studio.input_images import read_upload
from rivals.studio.run_store import RunStore

MAX_SIDE = 512  # pixels of the input that are translated: the middle of a larger picture
TRIPLES = "triples.png"


@errors_as_notices
def translated(store: RunStore, name: str | None, upload: str | None) -> Html:
    """An upload before and after translation; without one the triples of the run.

    Args:
        store: Where the translators are.
        name: The translator.
        upload: A picture's file.
    """
    if not name:
        return notice("There is no finished translator yet: a run of 'translate' writes one when it ends.")
    net = store.network(name, "translator")
    if net.spec["role"] != "translator":
        raise UserError(f"'{name}' holds a {net.spec['role']}: choose a translator")
    return _triples(store, name) if not upload else _upload(net, upload)


def _triples(store: RunStore, name: str) -> Html:
    picture = store.folder(name).parent / TRIPLES
    if not picture.is_file():
        return notice("Upload a picture to translate it.")
    with Image.open(picture) as opened:
        shown = ungrown(opened.convert("RGB"), _run_facts(picture.parent))
    caption = "Held-out images: input, output and, with pairs, target. Upload a picture to translate it."
    return picture_figure(shown, "triples of held-out images", caption, TRIPLES)


def _run_facts(folder: Path) -> Record:
    try:
        return Run(folder).info
    except (FileNotFoundError, UserError):
        return {}


def _upload(net: Any, upload: str) -> Html:
    from rivals.data.listing import Listing
    from rivals.data.pixel_modes import Peak
    from rivals.nets.tiles import translate_in_tiles

    peak = Peak(Listing("the upload", [], None, ()), net.about.get("white"))
    x, turned_gray = read_input(partial(read_upload, upload, mode=None), net, peak, "the upload")
    cut = max(x.shape[2:]) > MAX_SIDE
    top, left = (max(0, (side - MAX_SIDE) // 2) for side in x.shape[2:])
    x = x[..., top : top + MAX_SIDE, left : left + MAX_SIDE]
    start = time.perf_counter()
    y = translate_in_tiles(net, x)
    seconds = time.perf_counter() - start
    part = (f", the middle {MAX_SIDE} pixels of it" if cut else "") + (f", {TURNED_GRAY}" if turned_gray else "")
    sizes = [f"{each.shape[3]} x {each.shape[2]}" for each in (x, y)]
    before = _figure(x.repeat_interleave(net.scale, 2).repeat_interleave(net.scale, 3))
    after = _figure(y)
    return join(
        picture_figure(before, "the upload", f"The upload{part}: {sizes[0]}."),
        picture_figure(after, "translated", f"Translated: {sizes[1]}, in {seconds:.1f} s.", "translated.png"),
    )


def _figure(x: Any) -> Image.Image:
    """An image (1, C, H, W) in [0, 1] as a picture."""
    from rivals.base.images import to_pil

    return to_pil((x[0] * 255).round().byte().numpy())
