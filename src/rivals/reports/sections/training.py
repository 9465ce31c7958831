"""The sections of a run that trains: health, sample grids, curves, final metrics, configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rivals.base.run_folder import Record
from rivals.reports.formatting import (
    METRIC_NOTES,
    finite,
    format_count,
    format_duration,
    format_number,
    format_setting,
)
from rivals.reports.history import History, get_object
from rivals.reports.html import Html, color_legend, join, svg_figure, table, tag
from rivals.reports.plots.style import NARROW, WIDE
from rivals.reports.plots.training import curves_svg
from rivals.reports.sample_timeline import Frame
from rivals.reports.sections import translation
from rivals.reports.sections.common import EMPTY, Card, notice, run_legend, settings_list, state_card

MAX_PAST_ALARMS = 5
MAX_CLASS_NAMES = 12

GAME_EXPLANATION = Html("""<p>Two networks play against each other. The <b>generator</b> maps random latent vectors to
images. The <b>discriminator</b> classifies an image as real or generated. They learn in turns: the discriminator to
tell the two apart, the generator to make images that the discriminator takes for real. The generator never sees a real
image; it learns only from the gradient of the discriminator. At the <b>equilibrium</b>, the dashed lines in the curves,
generated images are distributed as the real ones, and the discriminator can do no better than chance.</p>
<p>A loss at its equilibrium value alone proves nothing: an untrained discriminator is at chance too. So look at the
images, and at their diversity.</p>""")

# The explanation of a panel, by the prefix of its metrics.
CURVE_NOTES = {
    "loss/discriminator": Html("""<p><b>Losses.</b> A low loss is good for its player, but does not measure quality:
each depends on an opponent that learns too. Look for lines that settle near their dashed lines. If the discriminator’s
loss falls to zero while the generator’s rises, the discriminator has won, and the generator’s gradient carries little
information.</p>"""),
    "d_": Html("""<p><b>Discriminator output</b> on real and on generated images. The gap between the lines is the
discriminator’s lead. Lines that approach each other mean that the generator keeps up.</p>"""),
    "score/": Html("""<p><b>Distance to the data.</b> The Fréchet distance between features of generated and of real
images. It should fall; where it rises again, the best state was earlier, and that is the one that is kept.</p>"""),
    "grad_norm": Html("""<p><b>Gradient norms.</b> Steady is good. A norm that vanishes means that the network has
stopped learning; one that grows without bound, that training is about to diverge.</p>"""),
    "accuracy/certified": Html("""<p><b>Accuracy</b> on held-out images, clean and certified (by IBP or CROWN-IBP)
at the full eps: a front, along which one is traded for the other. The run ends with the state of the highest certified
accuracy.</p>"""),
    "accuracy/pgd": Html("""<p><b>Accuracy</b> on held-out images: clean, under FGSM (one step), and under PGD (10
steps). The run ends with the state of the highest accuracy under PGD. If that falls while accuracy under FGSM stays
high, the classifier has overfitted to one step (catastrophic overfitting).</p>"""),
}
GRID_NOTE = Html("<p>Each place of the grid shows the same latent vector throughout the run.</p>")
DIVERSITY_NOTE = Html("""<p>Diversity: distances between the images of the grid, relative to those between real images.
Near 1 is good; a fall toward 0 is mode collapse.</p>""")
PLAY_BUTTON = Html(
    '<svg class="play" viewBox="0 0 16 16"><path d="M4 2l10 6-10 6z"/></svg>'
    '<svg class="pause" viewBox="0 0 16 16"><path d="M3 2h4v12H3zM9 2h4v12H9z"/></svg>'
)
COLORS = {1: "grayscale", 3: "color", 4: "color with alpha"}


def heading(history: History) -> str:
    """The recipe and the data, or the name of the folder."""
    names = [history.info.get("recipe"), history.section("data").get("name")]
    return " on ".join(str(name) for name in names if name) or history.folder.resolve().name


def key_figures(history: History) -> list[Card]:
    """State, data, length, recipe and networks."""
    info, data = history.info, history.section("data")
    figures = [state_card(history)]
    if "name" in data:
        notes = [
            f"{format_count(data['n'])} images" if "n" in data else "",
            f"{data['size']} px" if "size" in data else "",
            next((name for channels, name in COLORS.items() if channels == data.get("channels")), ""),
        ]
        figures.append(("Data", str(data["name"]), ", ".join(note for note in notes if note)))
    n = finite(data.get("n_train"))
    epochs = f"{format_number(history.images / n)} epochs" if n else ""
    figures.append(("Images seen", format_count(history.images), epochs))
    speed = history.last("images_per_second", share=1)
    figures.append(("Time", format_duration(history.seconds), f"{format_count(speed[0])} images/s" if speed else ""))
    if "recipe" in info:
        until = history.section("config").get("until")
        figures.append(("Recipe", str(info["recipe"]), f"until {until}" if until else ""))
    if hardened := history.section("hardened"):
        ball = f"{hardened.get('norm')} eps {format_number(hardened.get('eps'))}"
        figures.append(("Adversarial training", str(hardened.get("method")), ball))
    if fools := history.section("fools"):
        ball = f"{fools.get('norm')} eps {format_number(fools.get('eps'))}"
        left = history.last("accuracy/generator", share=1)
        under = f", accuracy {100 * left[1]:.1f}% under it" if left else ""
        figures.append(("Fools", str(fools.get("model", "")).rpartition("/")[2], ball + under))
    if inverts := history.section("inverts"):
        error = history.last("score/reconstruction", share=1)
        note = f"reconstruction error {format_number(error[1])}" if error else ""
        figures.append(("Inverts", str(inverts.get("run", "")).rpartition("/")[2], note))
    figures += translation.card(history)
    for name, player in history.section("players").items():
        if isinstance(player, dict):
            size = f"{format_count(player.get('parameters'))} parameters"
            figures.append((str(name).capitalize(), format_setting(player.get("net")), size))
    if "device" in info:
        figures.append(("Device", str(info["device"]), ""))
    return figures


def health(history: History) -> Html:
    """The alarms that are active at the end, with their remedies, and those that cleared."""
    raised: dict[str, Record] = {}
    cleared: list[tuple[Record, Record]] = []
    for event in history.alarms:
        name = str(event["alarm"])
        if event.get("raised"):
            raised.setdefault(name, event)
        elif name in raised:
            cleared.append((raised.pop(name), event))
    # A run that ended properly lists its active alarms in run.json; that of a killed run follow from the records.
    info = history.info
    listed = info.get("alarms") if info.get("state") in ("finished", "interrupted") else None
    active = listed if isinstance(listed, list) else list(raised.values())

    boxes = [_alarm_notice(alarm) for alarm in active if isinstance(alarm, dict)]
    if info.get("state") == "stopped":
        reason = info.get("message")
        boxes.insert(0, _alarm_notice({"message": f"The run stopped: {reason}." if reason else "The run stopped."}))
    if info.get("shortfall"):
        boxes.append(notice(str(info["shortfall"]), is_alarm=True))
    if not boxes:
        text = "No alarm at the end." if cleared else "No alarm."
        boxes = [notice(text if history.keys or cleared else "Nothing has been recorded yet.", is_alarm=False)]
    return join(*boxes, _cleared_alarms(cleared))


def _alarm_notice(alarm: Record) -> Html:
    return notice(_message(alarm), str(alarm.get("remedy") or ""), is_alarm=True)


def _cleared_alarms(cleared: Sequence[tuple[Record, Record]]) -> Html:
    """The last few alarms that are over, each with the images between which it was active."""
    if not cleared:
        return EMPTY
    rows = [
        tag("li", f"From {format_count(first['images'])} to {format_count(last['images'])} images: {_message(first)}")
        for first, last in cleared[-MAX_PAST_ALARMS:]
    ]
    if len(cleared) > len(rows):
        rows.insert(0, tag("li", f"{len(cleared) - len(rows)} earlier ones"))
    return join(tag("p", "Raised during the run, and cleared since:"), tag("ul", *rows, class_="events"))


def _message(alarm: Record) -> str:
    return str(alarm.get("message") or alarm.get("alarm", "alarm")).replace("\n", " ")


def timeline(frames: Sequence[Frame], index: int, note: Html = GRID_NOTE) -> Html:
    """The sample grids behind a slider; the last one is in the page itself, so that it shows without a script."""
    if not frames:
        return EMPTY
    entries = []
    for frame in frames:
        at = f"{format_count(frame.images)} images"
        if frame.seconds is not None:
            at += f", {format_duration(frame.seconds)}"
        diversity = f"diversity {frame.diversity:.2f}" if frame.diversity is not None else ""
        entries.append({"uri": frame.uri, "at": at, "note": diversity})
    last, size = entries[-1], {"width": frames[-1].width, "height": frames[-1].height}
    picture = tag("img", src=last["uri"], alt=f"Sample grid after {last['at']}", **size)
    now = tag("p", last["at"], tag("small", last["note"]), class_="now", role="status")
    caption = tag("figcaption", now, note, DIVERSITY_NOTE if last["note"] else "")
    if len(frames) == 1:
        return tag("figure", picture, caption, class_="timeline")
    controls = tag(
        "div",
        tag("button", PLAY_BUTTON, type="button", aria_label="Play", aria_pressed="false"),
        tag("input", type="range", min=0, step=1, aria_label="Sample grid"),
        class_="controls",
    )
    last["uri"] = ""  # the script takes it from the picture
    data = Html(json.dumps(entries).replace("<", "\\u003c"))
    return join(
        tag("figure", picture, caption, controls, class_="timeline", data_frames=f"frames-{index}"),
        tag("script", data, type="application/json", id=f"frames-{index}"),
    )


def curves(histories: Sequence[History], names: Sequence[str] = (), prefix: str = "") -> Html:
    """The training curves, and how to read them.

    Args:
        histories: One run, or several to compare.
        names: Of several runs.
        prefix: Of the ids in the figure, so that they differ from those of other runs on the page.
    """
    wide = curves_svg(histories, WIDE, f"{prefix}wide")
    narrow = curves_svg(histories, NARROW, f"{prefix}narrow")
    if wide is None or narrow is None:
        return EMPTY
    summary = balance(histories[0]) if len(histories) == 1 else ""
    keys = {key for history in histories for key in history.keys}
    notes = [note for prefix, note in CURVE_NOTES.items() if any(key.startswith(prefix) for key in keys)]
    return join(
        color_legend(run_legend(names)),
        svg_figure(wide, narrow),
        tag("p", summary, class_="summary") if summary else "",
        tag("div", *notes, class_="notes"),
    )


def balance(history: History) -> str:
    """Which player was ahead at the end, in a sentence; empty if the run does not record it."""
    real, fake = history.last("d_real"), history.last("d_fake")
    if real is None or fake is None:
        return ""
    text = (
        f"Over the last twentieth of the run, the mean discriminator output was {real[0]:.2f} on real images and "
        f"{fake[0]:.2f} on generated ones"
    )
    level = history.equilibrium("d")
    if history.info.get("d_unit", "probability") != "probability" or level is None:
        return f"{text}: the wider the gap, the further the discriminator is ahead."
    gap = real[0] - fake[0]
    if gap > 0.8:
        return f"{text}: the discriminator wins."
    if gap > 0.1:
        return f"{text}: the discriminator is ahead."
    if gap > -0.05:
        return f"{text}: close to the equilibrium at {format_number(level)}."
    return f"{text}: the discriminator takes generated images for real more often than real ones."


def game(histories: Sequence[History]) -> Html:
    """The GAN game in plain words, for runs with a generator and a discriminator."""
    players = {"generator", "discriminator"}
    plain = [history for history in histories if not translation.is_translation(history)]  # others have no latents
    return GAME_EXPLANATION if any(players <= history.section("players").keys() for history in plain) else EMPTY


def final_metrics(history: History) -> Html:
    """Every metric over the last twentieth of the run."""
    rows: list[list[str]] = []
    for key in history.keys:
        if last := history.last(key):
            meaning = METRIC_NOTES.get(key) or METRIC_NOTES.get(key.partition("-")[0])  # up to the extractor's name
            name = join(tag("code", key), tag("small", meaning) if meaning else "")
            rows.append([name, *(format_number(value) for value in last)])
    if not rows:
        return EMPTY
    note = tag("p", "Over the last twentieth of the images seen.", class_="muted")
    return join(note, table(["metric", "mean", "min", "max"], rows, "numbers"))


def configuration(info: Record) -> Html:
    """The settings of the run."""
    return settings_list(get_object(info, "config"))


def environment(info: Record) -> Html:
    """Device, seed, data, hardware, numerics, versions and git state."""
    flat: Record = {key: info[key] for key in ("device", "seed") if key in info}
    for key in ("data", "hardware", "numerics", "versions", "git"):
        flat |= _flatten("" if key in ("numerics", "versions") else key, get_object(info, key))
    classes = flat.get("data classes")
    if isinstance(classes, list):
        more = f" and {len(classes) - MAX_CLASS_NAMES} more" if len(classes) > MAX_CLASS_NAMES else ""
        flat["data classes"] = ", ".join(str(name) for name in classes[:MAX_CLASS_NAMES]) + more
    return settings_list(flat)


def _flatten(name: str, entries: Record) -> Record:
    """Nested entries as one level, with their names joined."""
    flat: Record = {}
    for key, value in entries.items():
        path = f"{name} {key}".strip()
        flat |= _flatten(path, value) if isinstance(value, dict) else {path: value}
    return flat


def command_line(info: Record) -> Html:
    """The command line of the run."""
    line = info.get("command_line")
    return tag("pre", tag("code", line)) if isinstance(line, str) and line else EMPTY
