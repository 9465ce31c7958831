"""The sections of an attack's report, made of the ``results`` in ``run.json``; empty for runs of other verbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rivals.reports.accuracy import Line, both_svgs, in_bytes
from rivals.reports.curves import RUNS, VARIABLES
from rivals.reports.examples import read_examples
from rivals.reports.history import History, number
from rivals.reports.markup import Html, join, pairs, table, tag
from rivals.reports.run import Record
from rivals.reports.words import STATES, count, duration, setting, short

NOTHING = Html()
WHAT = Html("""<p>An <b>attack</b> looks, in a small ball around each image, for one that looks the same and that the
classifier gets wrong. An image <b>stands</b> if the classifier is right about it and no part of the attack has found
such a neighbour. Bands and brackets are 95 % intervals (Wilson): where the true share lies if other images of the
same kind were taken.</p>""")
LEGEND = Html("""<p>Grey stands for no change; brighter or darker than that for pixels that were made so. The same
factor holds for all columns.</p>""")


def is_attack(history: History) -> bool:
    """Whether the run is one of ``rivals attack``."""
    return history.about.get("verb") == "attack"


def heading(history: History) -> str:
    """What was attacked, by what."""
    config = history.part("config")
    return f"{model_name(history)} under {_attack(config)}"


def header(history: History, title: str, subtitle: str, level: str) -> Html:
    """Title, and the numbers that matter as cards."""
    about, results, data = history.about, history.part("results"), history.part("data")
    begun = str(about.get("created", ""))[:16].replace("T", " ")
    line = tag("p", subtitle, f" · begun {begun}" if begun else "", class_="quiet")
    state = str(about.get("state", "unknown"))
    cards = []
    for name, key in (("Clean accuracy", "clean"), ("Robust accuracy", "robust"), ("Robust in 8 bits", "rounded")):
        if share := entry(results, key):
            cards.append((name, percent(share), interval(share)))
    cards.append(("Ball", _ball(history), "images in [0, 1]"))
    of = count(data.get("of"))
    cards.append(("Images", count(results.get("n", data.get("n"))), f"of {of} of {data.get('name', '?')}"))
    cards.append(("Model", model_name(history), f"{count(history.part('model').get('parameters'))} parameters"))
    cards.append(("Time", duration(history.seconds), str(about.get("device", ""))))
    cards.append(("State", state.capitalize(), STATES.get(state, "")))
    facts = {term: join(value, tag("small", more) if more else "") for term, value, more in cards}
    return join(tag(level, title), line, pairs(dict(facts), "facts"))


def sections(history: History) -> list[tuple[str, Html]]:
    """The sections that only an attack has."""
    return [
        ("Verdict", verdict(history)),
        ("Accuracy against eps", curve([history])),
        ("Before and after", examples(history)),
        ("Parts of the attack", parts(history)),
        ("Classes", classes(history)),
        ("How to read this", WHAT),
    ]


def verdict(history: History) -> Html:
    """Whether the numbers can be believed: the line, each alarm with its remedy, and the notes."""
    results = history.part("results")
    if not results:
        return tag("div", tag("p", "The attack has not come to an end: there are no results yet."), class_="calm")
    alarms = [alarm for alarm in results.get("alarms", []) if isinstance(alarm, dict)]
    said = str(results.get("verdict", ""))
    top = tag("p", tag("b", f"{said[:1].upper()}{said[1:]}."))
    told = [tag("p", f"What to do: {alarm['remedy']}.") if alarm.get("remedy") else "" for alarm in alarms]
    if len(alarms) <= 1:  # the line says all that the alarm does
        boxes = [tag("div", top, *told, class_="alarm" if alarms else "calm")]
    else:
        boxes = [tag("div", top, class_="alarm")]
        for alarm, remedy in zip(alarms, told, strict=True):
            says = str(alarm.get("says", alarm.get("alarm", "")))
            boxes.append(tag("div", tag("p", tag("b", f"{says[:1].upper()}{says[1:]}.")), remedy, class_="alarm"))
    notes = [tag("li", f"{str(note)[:1].upper()}{str(note)[1:]}.") for note in results.get("notes", [])]
    return join(*boxes, tag("ul", *notes, class_="past") if notes else "")


def curve(histories: Sequence[History], names: Sequence[str] = ()) -> Html:
    """Accuracy against eps, drawn where there are three points or more, and as a table."""
    lines = [found for history, name in zip(histories, names or [""], strict=True) if (found := _line(history, name))]
    if not lines or len({line.norm for line in lines}) > 1:
        return NOTHING
    drawn = both_svgs(lines)
    figure: Html | str = ""
    if drawn is not None:
        wide, narrow = (tag("div", Html(svg), class_=kind) for svg, kind in zip(drawn, ("wide", "narrow"), strict=True))
        figure = tag("figure", wide, narrow, class_="curves")
    if names:
        colours = [VARIABLES[RUNS[place % len(RUNS)]] for place in range(len(lines))]
        swatches = [
            tag("li", tag("i", style=f"background: {colour}"), line.name)
            for colour, line in zip(colours, lines, strict=True)
        ]
        return join(tag("ul", *swatches, class_="swatches"), figure) if drawn is not None else NOTHING
    rows = [
        [radius(point[0]), f"{100 * point[1]:.1f} %", f"{100 * point[2]:.1f} to {100 * point[3]:.1f} %"]
        for point in lines[0].points
    ]
    return join(figure, table(["eps", "stand", "95 % interval"], rows, "numbers all shares"))


def examples(history: History) -> Html:
    """Rows of clean, adversarial and magnified change, with the labels; one column an image."""
    found, times = read_examples(history.folder)
    if not found:
        return NOTHING
    names = history.part("data").get("classes")

    def called(number: int) -> str:
        known = isinstance(names, list) and 0 <= number < len(names)
        return str(names[number]) if known and isinstance(names, list) else str(number)

    def picture(uri: str, alt: str, told: str) -> Html:
        return tag("td", tag("img", src=uri, alt=alt, width=96, height=96), tag("small", told))

    rows = [
        tag("tr", tag("th", "Clean", scope="row"), *(
            picture(each.clean, f"Image {each.index}", called(each.label)) for each in found
        )),
        tag("tr", tag("th", "Adversarial", scope="row"), *(
            picture(each.adversarial, f"Image {each.index}, attacked", _answer(each.fell, called(each.said)))
            for each in found
        )),
        tag("tr", tag("th", f"Change × {times}", scope="row"), *(
            picture(each.change, f"The change to image {each.index}", f"eps {radius(each.eps)}") for each in found
        )),
    ]  # fmt: skip
    body = tag("div", tag("table", tag("tbody", *rows)), class_="scroll examples", tabindex=0)
    return join(body, tag("div", LEGEND, class_="quiet"))


def parts(history: History) -> Html:
    """Who felled how many, at what cost."""
    rows = []
    for each in listed(history.part("results"), "parts"):
        own = [each.get("attacked"), each.get("felled"), each.get("unverified")]
        passes = [each.get("forwards"), each.get("backwards")]
        seconds = number(each.get("seconds"))
        rows.append(
            [
                tag("code", str(each.get("part", ""))),
                *(count(value) for value in own),
                duration(seconds) if seconds is None or seconds >= 10 else f"{seconds:.1f} s",
                *(count(value) for value in passes),
            ]
        )
    if not rows:
        return NOTHING
    head = ["part", "attacked", "felled", "not verified", "time", "images forward", "images backward"]
    note = "Each part meets the images that those before it left standing; with several eps, their sum is shown."
    return join(tag("p", note, class_="quiet"), table(head, rows, "numbers all"))


def classes(history: History) -> Html:
    """Each class, as it is and under attack."""
    rows = []
    for each in listed(history.part("results"), "classes"):
        clean, robust = entry(each, "clean"), entry(each, "robust")
        shares = (percent(clean), percent(robust), interval(robust))
        rows.append([str(each.get("class", "")), count(clean.get("of")), *shares])
    return table(["class", "images", "clean", "robust", "95 % interval"], rows, "numbers all") if rows else NOTHING


def protocol(history: History) -> Html:
    """How the numbers were made: what was asked, and what came of it."""
    entries = {**history.part("config"), **entry(history.part("results"), "protocol")}
    told = {key: value for key, value in entries.items() if not isinstance(value, dict)}
    told["eps"] = str(history.part("config").get("eps", "")).replace(",", ", ")
    return pairs({key: setting(value) for key, value in told.items()}, "pairs") if told else NOTHING


def compared(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Attacked models side by side; empty where none of the runs is an attack."""
    chosen = [(history, name) for history, name in zip(histories, names, strict=True) if is_attack(history)]
    if not chosen:
        return NOTHING
    rows = []
    for history, name in chosen:
        results = history.part("results")
        clean, robust = entry(results, "clean"), entry(results, "robust")
        facts = (model_name(history), _attack(history.part("config")), _ball(history), count(results.get("n")))
        shares = (percent(clean), percent(robust), interval(robust))
        rows.append([name, *facts, *shares, str(results.get("verdict", "–"))])
    head = ["run", "model", "attack", "ball", "images", "clean", "robust", "95 % interval", "verdict"]
    return join(curve(*zip(*chosen, strict=True)), table(head, rows, "compare"))


def _line(history: History, name: str) -> Line | None:
    points = []
    for each in listed(history.part("results"), "curve"):
        found = [number(each.get(key)) for key in ("eps", "value", "low", "high")]
        eps, value, low, high = found
        if eps is not None and value is not None and low is not None and high is not None:
            points.append((eps, value, low, high))
    norm = str(entry(history.part("results"), "protocol").get("norm", ""))
    return Line(name, norm, points) if points else None


def model_name(history: History) -> str:
    """What the model is called: the folder of a path, or the name."""
    name = str(history.part("model").get("name", "model"))
    *before, last = name.split("/")
    return before[-1] if before and last.startswith("classifier.") else last.removesuffix(".safetensors")


def _ball(history: History) -> str:
    config = history.part("config")
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}.get(str(config.get("norm")), "")
    radii = entry(history.part("results"), "protocol").get("eps")
    largest = number(radii[-1]) if isinstance(radii, list) and radii else None
    told = str(config.get("eps", "")).rpartition(",")[2] if largest is None else radius(largest)
    return f"{norm} {told}".strip()


def _attack(config: Record) -> str:
    """The parts that were asked for, with room to break the line between them."""
    return str(config.get("attack", "an attack")).replace(",", ", ")


def radius(eps: float) -> str:
    """A radius as one writes it: ``8/255`` where that is how it was meant, else four digits."""
    return f"{eps * 255:.4g}/255" if 0 < eps < 1 and in_bytes(eps) else short(eps)


def _answer(fell: bool, name: str) -> str:
    return f"→ {name}" if fell else f"{name}, stands"


def percent(share: Record) -> str:
    """A share as it is written, an en dash for none."""
    value = number(share.get("value"))
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(share: Record) -> str:
    """Its interval likewise, nothing for none."""
    low, high = number(share.get("low")), number(share.get("high"))
    return "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"


def entry(record: Record, key: str) -> Record:
    """What is under a key if it is an object, else an empty one."""
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def listed(record: Record, key: str) -> list[dict[str, Any]]:
    """The objects in the list under a key."""
    value = record.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
