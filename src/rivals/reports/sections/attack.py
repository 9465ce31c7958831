"""The sections of ``rivals attack``, made from ``results`` in ``run.json``; empty for runs of other commands."""

from __future__ import annotations

from collections.abc import Sequence

from rivals.base.eps import describe_eps
from rivals.base.run_folder import Record
from rivals.reports.formatting import (
    MISSING,
    finite,
    format_count,
    format_duration,
    format_eps,
    format_interval,
    format_percent,
    sentence,
)
from rivals.reports.history import History, get_object, get_objects
from rivals.reports.html import Html, color_legend, join, svg_figure, table, tag
from rivals.reports.plots.robust_accuracy import AccuracyCurve, query_curve_svgs, robust_accuracy_svgs
from rivals.reports.sections import common
from rivals.reports.sections.adversarial_examples import FILE, read_examples
from rivals.reports.sections.common import EMPTY, Card, model_name, note_list, notice, run_legend
from rivals.reports.sections.corruptions import is_corruptions
from rivals.reports.sections.image_agnostic import is_image_agnostic

EXPLANATION = Html("""<p>An <b>adversarial example</b> lies within distance eps of a clean image, in the given norm, and
is misclassified. <b>Clean accuracy</b> is the share of images that are classified correctly; <b>robust accuracy</b> the
share that still is under every stage of the attack. An attack gives an upper bound of robust accuracy: a stronger one
may find more adversarial examples. Intervals are 95% Wilson intervals over the choice of images.</p>""")
CHANGE_NOTE = Html("""<p>Gray: no change; brighter or darker: the pixel was raised or lowered. All columns share one
factor.</p>""")
STAGES_NOTE = "A stage attacks the images that earlier stages left correctly classified. With several eps, their sum."
QUERIES_NOTE = (
    "A query is a forward pass of one image; the figure shows how many are still classified correctly after so many."
)


def is_attack(history: History) -> bool:
    """Whether the run is one of ``rivals attack`` whose images have an adversarial example each."""
    return history.info.get("command") == "attack" and not (is_corruptions(history) or is_image_agnostic(history))


def heading(history: History) -> str:
    """The model and the attack."""
    return f"{model_name(history)} under {_attack_name(history.section('config'))}"


def key_figures(history: History) -> list[Card]:
    """Clean and robust accuracy, the ball, and what was evaluated."""
    results = history.section("results")
    figures = [
        (name, format_percent(proportion), format_interval(proportion))
        for name, key in (
            ("Clean accuracy", "clean"),
            ("Robust accuracy", "robust"),
            ("Robust accuracy, 8 bits", "robust_8bit"),
            ("Naive accuracy, defense unseen", "naive"),
        )
        if (proportion := get_object(results, key))
    ]
    return [*figures, ("Ball", _ball_name(history), "images in [0, 1]"), *common.model_cards(history)]


def sections(history: History) -> list[tuple[str, Html]]:
    """The sections that only an attack has."""
    return [
        ("Verdict", verdict(history)),
        ("Robust accuracy against eps", accuracy_curve([history])),
        ("Robust accuracy against queries", query_curves(history)),
        ("Adversarial examples", examples(history)),
        ("Stages of the attack", stages(history)),
        ("Classes", classes(history)),
        ("Definitions", EXPLANATION),
        ("Protocol", common.protocol(history)),
    ]


def verdict(history: History) -> Html:
    """Whether the numbers can be trusted: the verdict, the alarms with their remedies, and the notes."""
    results = history.section("results")
    if not results:
        return notice("The attack has not finished: there are no results yet.", is_alarm=False)
    alarms = get_objects(results, "alarms")
    remedies = [sentence(alarm["remedy"]) if alarm.get("remedy") else "" for alarm in alarms]
    text = sentence(results.get("verdict", ""))
    if not alarms:
        boxes = [tag("div", tag("p", tag("b", text)), class_="ok")]
    elif len(alarms) == 1:  # the verdict repeats the only alarm
        boxes = [notice(text, remedies[0], is_alarm=True)]
    else:
        boxes = [notice(text, is_alarm=True)]
        for alarm, remedy in zip(alarms, remedies, strict=True):
            boxes.append(notice(sentence(alarm.get("message", alarm.get("alarm", ""))), remedy, is_alarm=True))
    return join(*boxes, note_list(results.get("notes", [])))


def accuracy_curve(histories: Sequence[History], names: Sequence[str] = ()) -> Html:
    """Robust accuracy against eps: a figure with three points or more, and a table for a single run."""
    found = [_curve(history, name) for history, name in zip(histories, names or [""], strict=True)]
    curves = [curve for curve in found if curve is not None]
    if not curves or len({curve.norm for curve in curves}) > 1:
        return EMPTY
    svgs = robust_accuracy_svgs(curves)
    figure = EMPTY if svgs is None else svg_figure(*svgs)
    if names:
        return join(color_legend(run_legend([curve.name for curve in curves])), figure) if figure else EMPTY
    rows = [
        [
            describe_eps(format_eps(eps), eps > 0 and _per_feature(histories[0])),
            f"{100 * value:.1f}%",
            f"{100 * low:.1f} to {100 * high:.1f}%",
        ]
        for eps, value, low, high in curves[0].points
    ]
    return join(figure, table(["eps", "robust accuracy", "95% interval"], rows, "numbers all short"))


def query_curves(history: History) -> Html:
    """Robust accuracy against the queries of each stage that counts them: a figure, and a table."""
    curves, rows = [], []
    for entry in get_objects(history.section("results"), "queries"):
        name, points = str(entry.get("stage", "")), []
        for point in get_objects(entry, "curve"):
            made, value, low, high = (finite(point.get(key)) for key in ("queries", "value", "low", "high"))
            if made is not None and value is not None and low is not None and high is not None and made >= 1:
                points.append((made, value, low, high))
                rows.append([name, format_count(int(made)), format_percent(point), format_interval(point)])
        curves.append(AccuracyCurve(name, "", points))
    if not rows:
        return EMPTY
    svgs = query_curve_svgs(curves)
    legend = color_legend(run_legend([curve.name for curve in curves])) if len(curves) > 1 else EMPTY
    figure = EMPTY if svgs is None else join(legend, svg_figure(*svgs))
    note = tag("p", QUERIES_NOTE, class_="muted")
    return join(note, figure, table(["stage", "queries", "robust accuracy", "95% interval"], rows, "numbers all short"))


def curve_points(record: Record) -> list[tuple[float, float, float, float]]:
    """(eps, value, low, high) of the ``curve`` in a record; entries that lack one are left out."""
    points = []
    for entry in get_objects(record, "curve"):
        eps, value, low, high = (finite(entry.get(key)) for key in ("eps", "value", "low", "high"))
        if eps is not None and value is not None and low is not None and high is not None:
            points.append((eps, value, low, high))
    return points


def _curve(history: History, name: str) -> AccuracyCurve | None:
    results = history.section("results")
    points = curve_points(results)
    norm = str(get_object(results, "protocol").get("norm", ""))
    return AccuracyCurve(name, norm, points) if points else None


def examples(history: History) -> Html:
    """A column per image: clean, adversarial, and the magnified change, with label and prediction."""
    found, factor = history.read_part(FILE, read_examples) or ([], 1)
    if not found:
        return EMPTY
    names = history.section("data").get("classes")

    def class_name(label: int) -> str:
        return str(names[label]) if isinstance(names, list) and 0 <= label < len(names) else str(label)

    def picture(uri: str, alt: str, caption: str) -> Html:
        return tag("td", tag("img", src=uri, alt=alt, width=96, height=96), tag("small", caption))

    clean, adversarial, change = [], [], []
    for each in found:
        prediction = class_name(each.prediction)
        outcome = f"→ {prediction}" if each.is_adversarial else f"{prediction}, robust"
        clean.append(picture(each.clean, f"Image {each.index}", class_name(each.label)))
        adversarial.append(picture(each.adversarial, f"Image {each.index}, attacked", outcome))
        change.append(
            picture(
                each.change,
                f"The change of image {each.index}",
                f"eps {describe_eps(format_eps(each.eps), _per_feature(history))}",
            )
        )
    titles = ("Clean", "Adversarial", f"Change × {factor}")
    rows = [
        tag("tr", tag("th", title, scope="row"), *cells)
        for title, cells in zip(titles, (clean, adversarial, change), strict=True)
    ]
    body = tag("div", tag("table", tag("tbody", *rows)), class_="scroll examples", tabindex=0)
    return join(body, tag("div", CHANGE_NOTE, class_="muted"))


def stages(history: History) -> Html:
    """What each stage of the attack found, and at what cost."""
    rows = []
    for stage in get_objects(history.section("results"), "stages"):
        counts = [format_count(stage.get(key)) for key in ("attacked", "fooled", "unverified")]
        passes = [format_count(stage.get(key)) for key in ("forwards", "backwards")]
        seconds = finite(stage.get("seconds"))
        time = format_duration(seconds) if seconds is None or seconds >= 10 else f"{seconds:.1f} s"
        rows.append([tag("code", str(stage.get("stage", ""))), *counts, time, *passes])
    if not rows:
        return EMPTY
    head = ["stage", "attacked", "misclassified", "not verified", "time", "forward passes", "backward passes"]
    return join(tag("p", STAGES_NOTE, class_="muted"), table(head, rows, "numbers all"))


def classes(history: History) -> Html:
    """Clean and robust accuracy of each class."""
    rows = []
    for each in get_objects(history.section("results"), "classes"):
        clean, robust = get_object(each, "clean"), get_object(each, "robust")
        figures = (format_percent(clean), format_percent(robust), format_interval(robust))
        rows.append([str(each.get("class", "")), format_count(clean.get("of")), *figures])
    return table(["class", "images", "clean", "robust", "95% interval"], rows, "numbers all") if rows else EMPTY


def comparison(histories: Sequence[History], names: Sequence[str]) -> Html:
    """Attacked models side by side; empty if none of the runs is an attack."""
    chosen = [(history, name) for history, name in zip(histories, names, strict=True) if is_attack(history)]
    if not chosen:
        return EMPTY
    rows = []
    for history, name in chosen:
        results = history.section("results")
        clean, robust = get_object(results, "clean"), get_object(results, "robust")
        subject = (model_name(history), _attack_name(history.section("config")), _ball_name(history))
        figures = (format_percent(clean), format_percent(robust), format_interval(robust))
        rows.append([name, *subject, format_count(results.get("n")), *figures, str(results.get("verdict", MISSING))])
    head = ["run", "model", "attack", "ball", "images", "clean", "robust", "95% interval", "verdict"]
    return join(accuracy_curve(*zip(*chosen, strict=True)), table(head, rows, "compare"))


def _ball_name(history: History) -> str:
    config = history.section("config")
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}.get(str(config.get("norm")), "")
    unit = " pixels" if config.get("pixels") is True else ""
    radii = get_object(history.section("results"), "protocol").get("eps")
    largest = finite(radii[-1]) if isinstance(radii, list) and radii else None
    eps = str(config.get("eps", "")).rpartition(",")[2] if largest is None else format_eps(largest)
    return f"{norm} {describe_eps(eps, _per_feature(history))}{unit}".strip()


def _per_feature(history: History) -> bool:
    """Whether eps is the largest radius of any feature."""
    return get_object(history.section("results"), "protocol").get("eps_scale") is not None


def _attack_name(config: Record) -> str:
    """The attacks, with spaces at which the line can break."""
    return str(config.get("attack", "an attack")).replace(",", ", ")
