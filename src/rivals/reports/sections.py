"""The sections of a run's report: each is HTML made of what the run holds, or empty where that is nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rivals.reports.curves import NARROW, RUNS, VARIABLES, WIDE, curves_svg
from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, pairs, table, tag
from rivals.reports.run import Record
from rivals.reports.timeline import Frame
from rivals.reports.words import MEANINGS, STATES, count, duration, setting, short, standing

GAME = Html("""<p>Two networks play against each other. The <b>generator</b> turns random numbers into
images. The <b>discriminator</b> looks at an image and says whether it is real or generated. They take
turns: the discriminator learns to tell the two kinds apart, then the generator learns to make images that
it takes for real. Nobody ever shows the generator what to draw; it learns only from how its rival answers.
If all goes well, the images become so good that the discriminator can do no better than toss a coin. That
is the <b>draw</b>, the dashed lines in the curves.</p>
<p>A draw alone proves nothing: a discriminator that has learnt nothing tosses a coin as well. So look at
the images too, and at how varied they are.</p>""")

NOTES = {
    "loss/discriminator": Html("""<p><b>Losses.</b> Low is good for its owner, but no mark of quality: it tells how well
one rival does against the other, who is learning too. Look for lines that settle near their dashed lines.
If the discriminator’s falls to zero while the generator’s climbs, the discriminator has won, and the
generator has little left to learn from.</p>"""),
    "d_": Html("""<p><b>Answers.</b> What the discriminator says of real and of generated images. The gap
between the lines is its lead. Lines that come together mean that the generator keeps up; lines at the far
ends mean that the game is over.</p>"""),
    "score/": Html("""<p><b>Distance to the data.</b> How far the generated images are from real ones, as a network
sees them that was trained on others. It should fall; where it rises again, the best state was earlier, and that is the
one that is kept.</p>"""),
    "grad_norm": Html("""<p><b>Gradient norms.</b> How strongly each network is being pushed. Steady is
good. A line that dives belongs to a network that has stopped learning; one that climbs without end, to one
that is about to break.</p>"""),
    "accuracy/pgd": Html("""<p><b>Accuracy.</b> On images kept aside: as they are, after one step of an attack, and
under PGD in ten. The last is what hardening is for, and the run ends with the state where it was highest. If it falls
while the line of one step stays up, the classifier has learnt to stand against that step and nothing else.</p>"""),
}
SHEETS = Html("""<p>Each place on the sheet shows what one and the same random input becomes as the
generator learns.</p>""")
DIVERSITY = Html("""<p>Diversity compares how much the images on the sheet differ from each other with how
much real images do. Near 1 is good; a fall towards 0 means that the generator draws the same thing over and
over.</p>""")
BUTTON = Html(
    '<svg class="play" viewBox="0 0 16 16"><path d="M4 2l10 6-10 6z"/></svg>'
    '<svg class="pause" viewBox="0 0 16 16"><path d="M3 2h4v12H3zM9 2h4v12H9z"/></svg>'
)
NOTHING = Html()
KINDS = {1: "grey", 3: "colour", 4: "colour with alpha"}


def heading(history: History) -> str:
    """What the run is about: its recipe and its data, or the name of its folder."""
    words = [history.about.get("recipe"), history.part("data").get("name")]
    return " on ".join(str(word) for word in words if word) or history.folder.resolve().name


def header(history: History, title: str, subtitle: str, level: str) -> Html:
    """Title, and the facts of the run as cards."""
    about, data = history.about, history.part("data")
    begun = str(about.get("created", ""))[:16].replace("T", " ")
    line = tag("p", subtitle, f" · begun {begun}" if begun else "", class_="quiet")

    state = str(about.get("state", "unknown"))
    cards = [("State", state.capitalize(), STATES.get(state, ""))]
    if "name" in data:
        words = [
            f"{count(data['n'])} images" if "n" in data else "",
            f"{data['size']} px" if "size" in data else "",
            next((kind for channels, kind in KINDS.items() if channels == data.get("channels")), ""),
        ]
        cards.append(("Data", str(data["name"]), ", ".join(word for word in words if word)))
    size = number(data.get("n"))
    epochs = f"{short(history.images / size)} epochs" if size else ""
    cards.append(("Images seen", count(history.images), epochs))
    speed = history.last("images_per_second", share=1)
    rate = f"{count(speed[0])} images/s" if speed else ""
    cards.append(("Time", duration(history.seconds), rate))
    if "recipe" in about:
        until = history.part("config").get("until")
        cards.append(("Recipe", str(about["recipe"]), f"until {until}" if until else ""))
    for player, what in history.part("players").items():
        if isinstance(what, dict):
            weights = f"{count(what.get('parameters'))} parameters"
            cards.append((player.capitalize(), setting(what.get("net")), weights))
    if "device" in about:
        cards.append(("Device", str(about["device"]), ""))
    facts = {term: join(value, tag("small", more) if more else "") for term, value, more in cards}
    return join(tag(level, title), line, pairs(dict(facts), "facts"))


def health(history: History) -> Html:
    """The alarms that stood at the end with their remedies, and those that passed."""
    standing_now: dict[str, Record] = {}
    passed: list[tuple[Record, Record]] = []
    for event in history.alarms:
        name = str(event["alarm"])
        if event.get("raised"):
            standing_now.setdefault(name, event)
        elif name in standing_now:
            passed.append((standing_now.pop(name), event))
    # A run that ended properly says itself what stood at its end; of another, the records tell.
    about = history.about
    recorded = about.get("alarms") if about.get("state") in ("finished", "interrupted") else None
    active = recorded if isinstance(recorded, list) else list(standing_now.values())

    parts = [_alarm(alarm) for alarm in active if isinstance(alarm, dict)]
    if about.get("state") == "stopped":
        why = about.get("says")
        parts.insert(0, _alarm({"says": f"The run stopped: {why}." if why else "The run stopped by itself."}))
    if not parts:
        quiet = "No alarm at the end." if passed else "No alarm."
        blank = "Nothing has been recorded, so there is nothing to judge."
        parts = [tag("div", tag("p", quiet if history.keys or passed else blank), class_="calm")]
    if passed:
        rows = [
            tag("li", f"From {count(first['images'])} to {count(last['images'])} images: {_says(first)}")
            for first, last in passed[-5:]
        ]
        if len(passed) > len(rows):
            rows.insert(0, tag("li", f"{len(passed) - len(rows)} others before these"))
        parts += [tag("p", "Raised during the run, and over since:"), tag("ul", *rows, class_="past")]
    return join(*parts)


def _alarm(alarm: Record) -> Html:
    remedy = alarm.get("remedy")
    return tag(
        "div",
        tag("p", tag("b", _says(alarm))),
        tag("p", tag("b", "What to do: "), str(remedy)) if remedy else "",
        class_="alarm",
    )


def _says(alarm: Record) -> str:
    """What the alarm says, or its name where it says nothing."""
    return str(alarm.get("says") or alarm.get("alarm", "alarm")).replace("\n", " ")


def timeline(shown: Sequence[Frame], place: int) -> Html:
    """The sheets behind a slider; the last one stands in the page, so that it is there without a script."""
    if not shown:
        return NOTHING
    entries = []
    for frame in shown:
        at = f"{count(frame.images)} images"
        if frame.seconds is not None:
            at += f", {duration(frame.seconds)}"
        more = f"diversity {frame.diversity:.2f}" if frame.diversity is not None else ""
        entries.append({"uri": frame.uri, "at": at, "more": more})
    last = entries[-1]
    picture = tag(
        "img",
        src=last["uri"],
        width=shown[-1].width,
        height=shown[-1].height,
        alt=f"Sample sheet after {last['at']}",
    )
    now = tag("p", last["at"], tag("small", last["more"]), class_="now", role="status")
    told = tag("figcaption", now, SHEETS, DIVERSITY if last["more"] else "")
    if len(shown) == 1:
        return tag("figure", picture, told, class_="timeline")
    controls = tag(
        "div",
        tag("button", BUTTON, type="button", aria_label="Play", aria_pressed="false"),
        tag("input", type="range", min=0, step=1, aria_label="Sample sheet"),
        class_="controls",
    )
    last["uri"] = ""  # the script takes it from the picture
    script = Html(json.dumps(entries).replace("<", "\\u003c"))
    return join(
        tag("figure", picture, told, controls, class_="timeline", data_frames=f"frames-{place}"),
        tag("script", script, type="application/json", id=f"frames-{place}"),
    )


def curves(histories: Sequence[History], names: Sequence[str] = (), prefix: str = "") -> Html:
    """The curves for wide and for narrow windows, and what to look for in them."""
    wide = curves_svg(histories, WIDE, f"{prefix}wide")
    narrow = curves_svg(histories, NARROW, f"{prefix}narrow")
    if wide is None or narrow is None:
        return NOTHING
    swatches = [
        tag("li", tag("i", style=f"background: {VARIABLES[RUNS[place % len(RUNS)]]}"), name)
        for place, name in enumerate(names)
    ]
    told = standing(histories[0]) if len(histories) == 1 else ""
    keys = {key for history in histories for key in history.keys}
    notes = [note for start, note in NOTES.items() if any(key.startswith(start) for key in keys)]
    return join(
        tag("ul", *swatches, class_="swatches") if swatches else "",
        tag(
            "figure",
            tag("div", Html(wide), class_="wide"),
            tag("div", Html(narrow), class_="narrow"),
            class_="curves",
        ),
        tag("p", told, class_="standing") if told else "",
        tag("div", *notes, class_="notes"),
    )


def game(histories: Sequence[History]) -> Html:
    """The game in plain words, where it is one of a generator and a discriminator."""
    rivals = {"generator", "discriminator"}
    return GAME if any(rivals <= history.part("players").keys() for history in histories) else NOTHING


def numbers(history: History) -> Html:
    """Every recorded number over the last twentieth of the run."""
    rows: list[list[str]] = []
    for key in history.keys:
        if last := history.last(key):
            name = join(tag("code", key), tag("small", MEANINGS[key]) if key in MEANINGS else "")
            rows.append([name, *(short(value) for value in last)])
    if not rows:
        return NOTHING
    note = tag("p", "Over the last twentieth of the images seen.", class_="quiet")
    return join(note, table(["number", "mean", "least", "greatest"], rows, "numbers"))


def configuration(about: Record) -> Html:
    """The settings of the run."""
    config = about.get("config")
    return _settings(config) if isinstance(config, dict) else NOTHING


def environment(about: Record) -> Html:
    """Device, seed, data, hardware, versions and git state."""
    flat: Record = {key: about[key] for key in ("device", "seed") if key in about}
    for part in ("data", "hardware", "versions", "git"):
        if isinstance(entries := about.get(part), dict):
            flat |= _flat("" if part == "versions" else part, entries)
    classes = flat.get("data classes")
    if isinstance(classes, list):
        more = f" and {len(classes) - 12} more" if len(classes) > 12 else ""
        flat["data classes"] = ", ".join(str(name) for name in classes[:12]) + more
    return _settings(flat)


def _flat(name: str, entries: Record) -> Record:
    """Entries within entries as one table: their names are joined."""
    flat: Record = {}
    for key, value in entries.items():
        path = f"{name} {key}".strip()
        flat |= _flat(path, value) if isinstance(value, dict) else {path: value}
    return flat


def _settings(entries: Record) -> Html:
    return pairs({key: setting(value) for key, value in entries.items()}, "pairs") if entries else NOTHING


def command(about: Record) -> Html:
    """The command line that makes the run again."""
    line = about.get("command")
    return tag("pre", tag("code", line)) if isinstance(line, str) and line else NOTHING
