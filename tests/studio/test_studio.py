"""What the studio shows, by the functions that make it: no browser, no Gradio."""

import io
import json
import socket
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from fake_runs import batches, fake_run
from rivals.api.networks import keep
from rivals.base.errors import UserError
from rivals.nets.build import build_classifier, build_generator
from rivals.reports.run import Run
from rivals.studio import comparing, fooling, pulse, serving, wandering, watching
from rivals.studio.children import Children
from rivals.studio.shelf import Following, Shelf


@pytest.fixture
def shelf(tmp_path):
    fake_run(tmp_path / "one", config={"until": "25600 images", "batch": 64})
    fake_run(tmp_path / "two", seed=1, config={"until": "12800 images", "batch": 32})
    return Shelf(tmp_path)


def networks(home):
    """A conditional generator, and two classifiers of which one is hardened, all with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawing = build_generator("mlp", size=8, channels=1, classes=2, latent=4, widths=(8,))
        (home / "run").mkdir()
        (home / "run" / "run.json").write_text(json.dumps({"format": 1, "state": "finished"}))
        keep(drawing, home / "run" / "generator.safetensors", {"classes": ["cats", "dogs"]})
        for name, more in (("hard", {"hardened": {}}), ("plain", {})):
            net = build_classifier("cnn", size=8, channels=1, classes=2, widths=(4,))
            with torch.no_grad():
                for weights in net.parameters():
                    weights.mul_(8)  # or it would not care for its image
            keep(net, home / f"{name}.safetensors", {"classes": ["cats", "dogs"], "data": "photos", **more})
    for i in range(12):
        path = home / "photos" / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return Shelf(home)


def test_a_run_is_followed_record_by_record(tmp_path):
    run = fake_run(tmp_path / "run", steps=20)
    history = Following(run.folder)
    assert history.step == 20
    mark = history.mark
    history.follow()
    assert history.mark == mark
    run.append([{**batches(21)[-1]}])
    with run.metrics.open("a") as file:
        file.write('{"images": 9999, "step"')  # still being written
    history.follow()
    assert history.step == 21 and history.mark != mark
    with run.metrics.open("a") as file:
        file.write(': 22, "seconds": 1.0}\n')
    history.follow()
    assert history.step == 22
    assert history.images == Following(run.folder).images == 9999


def test_a_run_that_was_rewound_is_read_anew(tmp_path):
    run, shelf = fake_run(tmp_path / "run", steps=20), Shelf(tmp_path)
    assert shelf.history("run").step == 20
    run.rewind(10)
    assert shelf.history("run").step == 10


def test_each_record_is_read_once(tmp_path, monkeypatch):
    run = fake_run(tmp_path / "run", steps=20)
    read = []
    take = Following._take
    monkeypatch.setattr(Following, "_take", lambda self, n, record: (read.append(n), take(self, n, record)))
    shelf = Shelf(tmp_path)
    shelf.history("run")
    first = len(read)
    shelf.history("run")
    assert first >= 20 and len(read) == first
    run.append([batches(21)[-1]])
    shelf.history("run")
    assert len(read) == first + 1


def test_the_list_tells_of_every_run_and_what_is_wrong_with_it(shelf):
    children = Children()
    (shelf.root / "half").mkdir()
    (shelf.root / "half" / "run.json").write_text('{"format": 1, "st')
    (shelf.root / "newer").mkdir()
    (shelf.root / "newer" / "run.json").write_text('{"format": 99}')
    (shelf.root / "<b>").mkdir()
    (shelf.root / "<b>" / "run.json").write_text("[]")
    said = watching.listing(shelf, children)
    assert "50 %, 12,800 images" in said and "100 %, 12,800 images" in said
    assert "cannot be understood" in said and "newer version" in said and "&lt;b&gt;" in said


def test_an_empty_folder_says_how_to_begin(tmp_path):
    assert "no run here yet" in watching.listing(Shelf(tmp_path / "nothing"), Children())


def test_a_run_that_was_deleted_while_shown_is_a_message(shelf):
    figures = watching.Figures()
    assert "<svg" in watching.curves(shelf, figures, ["one", "two"])
    (shelf.root / "one" / "run.json").unlink()
    for said in (
        watching.curves(shelf, figures, ["one", "two"]),
        watching.sheet(shelf, "one", 1.0),
        watching.health(shelf, ["one"]),
        comparing.equilibrium(shelf, figures, "one"),
        comparing.runs(shelf, figures, "one", "two"),
    ):
        assert "not a run" in said and 'class="alarm"' in said


def test_the_timeline_goes_from_the_first_sheet_to_the_newest(shelf):
    first, newest = (watching.sheet(shelf, "one", share) for share in (0.0, 1.0))
    assert "2,560 images" in first and "12,800 images" in newest and first != newest
    (shelf.root / "one" / "samples" / sorted((shelf.root / "one" / "samples").iterdir())[0].name).unlink()
    assert "missing" in watching.sheet(shelf, "one", 0.0)


def test_figures_are_drawn_once_until_there_is_something_new(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: clock[0])
    drawn = []

    def draw():
        clock[0] += 1.0
        drawn.append(None)
        return watching.Html(str(len(drawn)))

    figures = watching.Figures()
    assert figures("a", 1, draw) == figures("a", 1, draw) == "1"
    clock[0] += 5
    assert figures("a", 2, draw) == "1"  # it took a second: it stays for twenty
    clock[0] += 20
    assert figures("a", 2, draw) == "2"
    assert figures("b", 1, draw) == "3"


def test_a_page_is_told_when_to_look_again(shelf, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: clock[0])
    ask = pulse.Pulse(shelf, Children())

    def later(page="a"):
        clock[0] += 1.0
        return ask(page)

    first = later()
    assert later() == first and first["wait"] == pulse.SOONEST
    Run(shelf.root / "one").append(batches(201)[-1:])
    told = later()
    assert told["news"] == first["news"] and told["records"] != first["records"]
    Run.open(shelf.root / "one").update(state="interrupted")
    assert later()["news"] != told["news"]
    before = later()
    new = Run.create(shelf.root / "new", {"verb": "train"})
    begun = later()
    assert begun["news"] != before["news"]
    new.samples.mkdir()  # drawn, and not yet told of
    assert later()["news"] == begun["news"]
    new.append([{"images": 1, "step": 1, "seconds": 0.1, "sheet": "samples/1.png"}])
    assert later()["news"] != begun["news"]
    assert [ask(f"page {i}")["wait"] for i in range(9)][-1] == pytest.approx(10 * pulse.LOOK / pulse.SHARE)
    clock[0] += pulse.GONE
    assert ask("a")["wait"] == pulse.SOONEST


def test_the_equilibrium_and_its_words(shelf):
    said = comparing.equilibrium(shelf, watching.Figures(), "one")
    assert "Who is ahead" in said and "2 log 2" in said and "mode collapse" in said


def test_comparing_tells_what_differs(shelf):
    said = comparing.runs(shelf, watching.Figures(), "one", "two")
    assert ">25600 images</td>" in said and ">12800 images</td>" in said and said.count('<figure class="picture"') == 2


def test_the_latent_space_moves_with_its_sliders(tmp_path):
    shelf = networks(tmp_path)
    assert shelf.networks("generator") == ["run"]
    assert wandering.classes_of(shelf, "run") == ["cats", "dogs"]

    def show(**changes):
        asked = {"seed": 0, "other": 1, "way": 0.0, "truncation": 1.0, "label": "", "kind": "closed form"}
        return wandering.place(shelf, "run", **{**asked, "amounts": [0, 0], **changes})

    plain = show()
    assert plain.count("<img") == 3 and 'download="latent-0-1.png"' in plain
    others = ({"seed": 2}, {"way": 0.5}, {"truncation": 0.5}, {"label": "dogs"}, {"amounts": [2, 0]})
    assert len({plain, *(show(**other) for other in others)}) == 6
    assert show(amounts=[2, 0]) != show(amounts=[2, 0], kind="PCA")
    assert "whole number" in show(seed=1.5)
    assert "finished generator" in wandering.place(shelf, None, 0, 1, 0, 1, "", "PCA", [])


def test_an_attack_moves_with_eps_and_stays_in_its_ball(tmp_path):
    shelf = networks(tmp_path)
    photos = str(tmp_path / "photos")
    assert fooling.partner(shelf, "plain.safetensors") == "hard.safetensors"

    def show(slid, norm="Linf", beside=None):
        return fooling.fooled(shelf, "plain.safetensors", beside, photos, 0, None, norm, slid)

    pictures = [show(slid).split("src=")[3] for slid in (0, 8, 64)]
    assert len(set(pictures)) == 3
    assert "No change" in show(0)
    assert show(8, beside="hard.safetensors").count("<h4>") == 2
    net = shelf.network("plain.safetensors", "classifier")
    chosen = fooling.from_data(net, photos, 0)
    for norm, p in (("Linf", torch.inf), ("L2", 2), ("L1", 1)):
        change = fooling.attacked(net, chosen.x, 0, norm, 0.1) - chosen.x
        assert 0 < float(change.flatten().norm(p)) <= 0.1 * (1 + 1e-5)
    assert (
        "there is no image 600"
        in fooling.fooled(shelf, "plain.safetensors", None, photos, 600, None, "Linf", 8).lower()
    )


def bomb():
    """A PNG that says it has 100 million pixels."""
    file = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


@pytest.mark.parametrize(
    "content, says",
    [
        (b"no picture at all", "cannot be read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "cannot be read"),
        (zipped(), "cannot be read"),
        (bomb(), "100 million pixels"),
        (b"", "0 MB"),
        (bytes(26_000_000), "26 MB"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "cannot be read"),
    ],
    ids=["text", "svg", "zip", "pixels", "empty", "large", "cut"],
)
def test_a_bad_upload_is_a_message(tmp_path, content, says):
    shelf = networks(tmp_path)
    (tmp_path / "upload").write_bytes(content)
    said = fooling.fooled(shelf, "plain.safetensors", None, None, 0, str(tmp_path / "upload"), "Linf", 8)
    assert says in said and 'class="alarm"' in said and "Traceback" not in said


def test_an_upload_is_fitted_to_the_classifier(tmp_path):
    shelf = networks(tmp_path)
    Image.new("RGBA", (60, 40), (255, 0, 0, 255)).save(tmp_path / "red.png")
    net = shelf.network("plain.safetensors", "classifier")
    x = fooling.uploaded(net, str(tmp_path / "red.png")).x
    assert x.shape == (1, 1, 8, 8)
    torch.testing.assert_close(x, torch.full_like(x, 0.299), atol=1e-4, rtol=0)
    assert "Upload" in fooling.fooled(
        shelf, "plain.safetensors", None, None, 0, str(tmp_path / "red.png"), "L2", 0.5
    ).replace("upload", "Upload")


def test_names_do_not_lead_out_of_the_folder(shelf):
    for name in ("../elsewhere", "/etc", ""):
        with pytest.raises(UserError, match="no run of"):
            shelf.folder(name)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"verb": "push"}, "begins no run"),
        ({"name": "../out"}, "cannot be the name"),
        ({"name": "-x"}, "cannot be the name"),
        ({"data": "--help"}, "names no data"),
        ({"recipe": "trian"}, "no recipe"),
        ({"until": "soon"}, "not a length"),
        ({"name": "one"}, "exists already"),
        ({"verb": "harden", "recipe": "", "eps": "much"}, "no radius"),
    ],
)
def test_a_run_that_cannot_begin_says_why(shelf, changes, says):
    asked = {"verb": "train", "data": "mnist5k", "recipe": "quick", "until": "1 minutes", "eps": "", "name": "new"}
    with pytest.raises(UserError, match=says):
        Children().start(shelf.root, **{**asked, **changes})


def test_stopping_and_resuming_what_cannot_be(shelf):
    children = Children()
    with pytest.raises(UserError, match="not begun from this page"):
        children.stop(shelf.folder("one"))
    with pytest.raises(UserError, match="is finished"):
        children.resume(shelf.folder("one"))
    fake_run(shelf.root / "three", verb="attack")
    with pytest.raises(UserError, match="cannot be resumed"):
        children.resume(shelf.folder("three"))


def until(true, seconds=240.0):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def test_a_run_is_begun_stopped_and_resumed(tmp_path):
    networks(tmp_path)
    shelf, children = Shelf(tmp_path), Children()
    children.start(tmp_path, "train", str(tmp_path / "photos"), "mlp", "4 minutes", "", "new")
    folder = shelf.folder("new")
    assert children.alive() == [folder.resolve()]
    until(lambda: (folder / "metrics.jsonl").exists() and shelf.history("new").step > 0)
    assert "running: " in watching.listing(shelf, children) and watching.sheets(shelf, "new")
    with pytest.raises(UserError, match="running already"):
        children.resume(folder)
    other = Children()  # of a second studio on the same folder
    with pytest.raises(UserError, match="not begun from this page"):
        other.stop(folder)
    other.resume(folder)
    until(lambda: not other.running(folder))
    assert "played by another process" in watching.listing(shelf, other) and children.running(folder)
    assert "asked to stop" in children.stop(folder)
    until(lambda: not children.running(folder))
    history = shelf.history("new")
    assert history.about["state"] == "interrupted" and not children.failures()
    children.resume(folder, f"{history.step + 5} steps")
    until(lambda: not children.running(folder))
    assert shelf.history("new").about["state"] == "finished" and not children.failures()
    assert shelf.history("new").step == history.step + 5
    children.resume(folder, "1 steps")
    until(lambda: not children.running(folder))
    assert "past" in watching.listing(shelf, children) and shelf.history("new").about["state"] == "finished"
    children.resume(folder, "2M images")
    assert "asked to stop" in children.stop(folder)  # while it is still starting
    until(lambda: not children.running(folder))
    assert not children.failures()
    children.start(tmp_path, "classify", "nowhere-at-all", "", "", "", "bad")
    until(lambda: not children.running(tmp_path / "bad"))
    assert "unknown data set" in watching.listing(shelf, children)


def test_a_port_in_use_is_refused_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use"):
            serving.free_port("127.0.0.1", port)
    with pytest.raises(UserError, match="no port"):
        serving.free_port("127.0.0.1", 70_000)
    with pytest.raises(UserError, match="no address of this machine"):
        serving.free_port("192.0.2.1", None)


def test_the_verb_refuses_with_status_2(tmp_path):
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "rivals", "studio", str(tmp_path / "file")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is a file" in done.stderr
