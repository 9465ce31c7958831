"""The judgement of a translator on held-out images, and triples of input, output and target."""

from __future__ import annotations

from rivals.reports.formatting import finite, format_count, format_number
from rivals.reports.history import History, get_object
from rivals.reports.html import Html, join, table, tag
from rivals.reports.sections.common import EMPTY, Card, note_list
from rivals.reports.sections.neighbors import picture_figure

KINDS = {"upscale": "enlarging", "paired": "pairs", "unpaired": "without pairs"}
# What a value means, by its name up to the extractor's.
MEANINGS = {
    "psnr": "in dB, the mean over images: higher is closer to the target, pixel by pixel",
    "ssim": "structural similarity, the mean over images: 1 is equal",
    "PD": "perceptual distance, the mean over images, by normalized features of an extractor: 0 is equal; not LPIPS",
    "structure": "how well outputs keep the structure of their inputs, whatever the colors: the correlation of the "
    "self-similarities of features, the mean over images; 1 is kept, about 0 is unrelated",
    "LPIPS": "learned perceptual distance (Zhang et al. 2018), the mean over images: 0 is equal",
    "FD": "Fréchet distance of the features of all outputs to those of all targets: 0 is the same distribution",
}
TITLES = {"psnr": "PSNR", "ssim": "SSIM"}
GRID_NOTE = Html("<p>Always the same held-out images: input, output and, with pairs, target.</p>")
EXPLANATION = Html("""<p>PSNR and SSIM reward an output that is right on average, which is blurred where the input
leaves several possibilities. An adversarial loss prefers one of them, in full detail: PSNR falls a little,
and distances by features fall too, which is better.</p>""")
UNPAIRED = Html("""<p>Read both values together. The input itself has the structure 1 and a high distance to the
targets; a target that has nothing to do with the input has the distance of the targets, and no structure. A good
translator lowers the distance and keeps the structure.</p>""")


def is_translation(history: History) -> bool:
    """Whether the run is one of ``rivals translate``."""
    return history.info.get("command") == "translate"


def card(history: History) -> list[Card]:
    """What the run translates."""
    found = history.section("translates")
    if not found:
        return []
    kind = str(found.get("kind"))
    value = (
        f"{found.get('scale')} times larger" if kind == "upscale" else "B to A" if found.get("reverse") else "A to B"
    )
    return [("Translates", value, KINDS.get(kind, ""))]


def section(history: History) -> Html:
    """The table of values, and the triples; empty before the run has ended."""
    results = history.section("results")
    values = get_object(results, "values")
    sides = {name: side for name, side in values.items() if isinstance(side, dict)}
    if not sides:
        return EMPTY
    keys = list(dict.fromkeys(key for side in sides.values() for key in side))
    rows = [[name, *(format_number(finite(side.get(key))) for key in keys)] for name, side in sides.items()]
    notes = [str(note) for note in results.get("notes", []) if isinstance(note, str)]
    meanings = [
        f"{TITLES.get(key, key)}: {MEANINGS[start]}" for key in keys if (start := key.partition("-")[0]) in MEANINGS
    ]
    n, split = format_count(results.get("n")), results.get("split")
    caption = (
        f"{n} images of the {split} split, none of which was trained on. The Fréchet distance depends on their number."
    )
    triples = picture_figure(
        history.folder, results.get("triples"), Html("Input, output and, with pairs, target."), "Triples"
    )
    return join(
        table(["", *(TITLES.get(key, key) for key in keys)], rows, "numbers"),
        tag("p", caption, class_="muted"),
        note_list([*meanings, *notes]),
        EXPLANATION if "psnr" in keys else UNPAIRED if any(key.startswith("structure") for key in keys) else "",
        triples,
    )
