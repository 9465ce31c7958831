"""The functions that make what the studio shows, without a browser or Gradio."""

import io
import socket
import struct
import subprocess
import sys
import time
import zipfile

import pytest
import torch
from PIL import Image

from helpers.fake_runs import batches, fake_run
from helpers.png_files import png
from helpers.small_networks import save_networks
from rivals.api.common.network_io import save_network
from rivals.base.errors import UserError
from rivals.base.run_folder import Run
from rivals.nets.factory import build_perturber, build_translator
from rivals.reports.html import Html
from rivals.studio import (
    figure_cache,
    input_images,
    polling,
    server,
    tab_attack,
    tab_compare,
    tab_latent,
    tab_runs,
    tab_translate,
)
from rivals.studio.classifier_sources import ClassifierSources
from rivals.studio.data_sources import DataSources
from rivals.studio.figure_cache import FigureCache
from rivals.studio.processes import RunProcesses, RunRequest
from rivals.studio.run_store import LiveHistory, RunStore


@pytest.fixture
def store(tmp_path):
    fake_run(tmp_path / "one", config={"until": "25600 images", "batch_size": 64})
    fake_run(tmp_path / "two", seed=1, config={"until": "12800 images", "batch_size": 32})
    return RunStore(tmp_path)


def make_processes(folder, *data):
    """What starts runs, on data in ``folder``."""
    return RunProcesses(folder / "logs", DataSources.named(str(folder / name) for name in data))


def test_live_history_adds_new_records(tmp_path):
    run = fake_run(tmp_path / "run", steps=20)
    history = LiveHistory(run.folder)
    assert history.step == 20
    version = history.version
    history.update()
    assert history.version == version
    run.append([{**batches(21)[-1]}])
    with run.metrics.open("a") as file:
        file.write('{"images": 9999, "step"')  # still being written
    history.update()
    assert history.step == 21 and history.version != version
    with run.metrics.open("a") as file:
        file.write(': 22, "seconds": 1.0}\n')
    history.update()
    assert history.step == 22
    assert history.images == LiveHistory(run.folder).images == 9999


def test_rewound_run_is_read_again(tmp_path):
    run, store = fake_run(tmp_path / "run", steps=20), RunStore(tmp_path)
    assert store.history("run").step == 20
    run.rewind(10)
    assert store.history("run").step == 10


def test_each_record_is_read_once(tmp_path, monkeypatch):
    run = fake_run(tmp_path / "run", steps=20)
    read = []
    take = LiveHistory._add
    monkeypatch.setattr(LiveHistory, "_add", lambda self, n, record: (read.append(n), take(self, n, record)))
    store = RunStore(tmp_path)
    store.history("run")
    first = len(read)
    store.history("run")
    assert first >= 20 and len(read) == first
    run.append([batches(21)[-1]])
    store.history("run")
    assert len(read) == first + 1


def test_run_list_shows_progress_and_errors(store):
    processes = make_processes(store.root)
    (store.root / "half").mkdir()
    (store.root / "half" / "run.json").write_text('{"format": 1, "st')
    (store.root / "newer").mkdir()
    (store.root / "newer" / "run.json").write_text('{"format": 99}')
    (store.root / "<b>").mkdir()
    (store.root / "<b>" / "run.json").write_text("[]")
    fake_run(store.root / "epochs", config={"until": "4 epochs"})
    said = tab_runs.run_list(store, processes)
    assert "50%, 12,800 images" in said and "80%, 12,800 images" in said and "100%, 12,800 images" in said
    assert "no JSON at line 1" in said and "newer version" in said and "&lt;b&gt;" in said


def test_damaged_parts_are_left_out_and_named(store):
    with (store.root / "one" / "metrics.jsonl").open("a") as file:
        file.write("[" * 5000 + "\n")
    (store.root / "one" / "equilibrium.json").write_text('{"values": 3}')
    figures = FigureCache()
    assert "Left out: 1 line of" in tab_runs.health(store, ["one"])
    said = tab_compare.equilibrium(store, figures, "one")
    assert "values is 3, not a list" in said and "Who is ahead" in said
    assert "<svg" in tab_runs.curves(store, figures, ["one"])


def test_empty_folder_explains_how_to_start(tmp_path):
    assert "no runs yet" in tab_runs.run_list(RunStore(tmp_path / "nothing"), make_processes(tmp_path))


def test_deleted_run_is_a_message_on_every_tab(store):
    figures = FigureCache()
    assert "<svg" in tab_runs.curves(store, figures, ["one", "two"])
    (store.root / "one" / "run.json").unlink()
    for said in (
        tab_runs.curves(store, figures, ["one", "two"]),
        tab_runs.sample_grid(store, "one", 1.0),
        tab_runs.health(store, ["one"]),
        tab_compare.equilibrium(store, figures, "one"),
        tab_compare.runs(store, figures, "one", "two"),
    ):
        assert "not a run" in said and 'class="alarm"' in said


def test_timeline_goes_from_the_first_grid_to_the_newest(store):
    first, newest = (tab_runs.sample_grid(store, "one", share) for share in (0.0, 1.0))
    assert "2,560 images" in first and "12,800 images" in newest and first != newest
    (store.root / "one" / "samples" / sorted((store.root / "one" / "samples").iterdir())[0].name).unlink()
    assert "missing" in tab_runs.sample_grid(store, "one", 0.0)


def test_figures_are_cached_for_twenty_times_their_cost(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(figure_cache.time, "monotonic", lambda: clock[0])
    drawn = []

    def draw():
        clock[0] += 1.0
        drawn.append(None)
        return Html(str(len(drawn)))

    figures = FigureCache()
    assert figures("a", 1, draw) == figures("a", 1, draw) == "1"
    clock[0] += 5
    assert figures("a", 2, draw) == "1"  # it took a second: it stays for twenty
    clock[0] += 20
    assert figures("a", 2, draw) == "2"
    assert figures("b", 1, draw) == "3"


def test_update_checker_reports_changes_and_wait(store, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(polling.time, "monotonic", lambda: clock[0])
    ask = polling.UpdateChecker(store, make_processes(store.root))

    def later(page="a"):
        clock[0] += 1.0
        return ask(page)

    first = later()
    assert later() == first and first["wait"] == polling.MIN_WAIT
    Run(store.root / "one").append(batches(201)[-1:])
    second = later()
    assert second["runs"] == first["runs"] and second["records"] != first["records"]
    Run.open(store.root / "one").update(state="interrupted")
    assert later()["runs"] != second["runs"]
    before = later()
    new = Run.create(store.root / "new", {"command": "train"})
    begun = later()
    assert begun["runs"] != before["runs"]
    new.samples.mkdir()  # written, but not yet in the log
    assert later()["runs"] == begun["runs"]
    new.append([{"images": 1, "step": 1, "seconds": 0.1, "sample_grid": "samples/1.png"}])
    assert later()["runs"] != begun["runs"]
    assert [ask(f"page {i}")["wait"] for i in range(9)][-1] == pytest.approx(
        10 * polling.REFRESH_COST / polling.MAX_LOAD
    )
    clock[0] += polling.PAGE_TIMEOUT
    assert ask("a")["wait"] == polling.MIN_WAIT


def test_equilibrium_tab_has_figure_and_glossary(store):
    said = tab_compare.equilibrium(store, FigureCache(), "one")
    assert "Who is ahead" in said and "2 log 2" in said and "mode collapse" in said


def test_comparison_shows_differences(store):
    said = tab_compare.runs(store, FigureCache(), "one", "two")
    assert ">25600 images</td>" in said and ">12800 images</td>" in said and said.count('<figure class="picture"') == 2


def test_latent_images_follow_the_controls(tmp_path):
    save_networks(tmp_path)
    store = RunStore(tmp_path)
    assert store.networks("generator") == ["run"]
    assert tab_latent.class_names(store, "run") == ["cats", "dogs"]

    def show(**changes):
        controls = {
            "seed": 0,
            "other_seed": 1,
            "position": 0.0,
            "truncation": 1.0,
            "label": "",
            "method": "closed form",
        }
        controls |= {"amounts": (0, 0), **changes}
        return tab_latent.latent_images(store, "run", tab_latent.LatentControls(**controls))

    plain = show()
    assert plain.count("<img") == 3 and 'download="latent-0-1.png"' in plain
    others = ({"seed": 2}, {"position": 0.5}, {"truncation": 0.5}, {"label": "dogs"}, {"amounts": (2, 0)})
    assert len({plain, *(show(**other) for other in others)}) == 6
    assert show(amounts=(2, 0)) != show(amounts=(2, 0), method="PCA")
    assert "whole number" in show(seed=1.5)
    assert "finished generator" in tab_latent.latent_images(
        store, None, tab_latent.LatentControls(0, 1, 0, 1, "", "PCA", ())
    )


def attack_results(store, sources, *controls):
    classifiers = ClassifierSources(store, committed=store.root / "none")
    return tab_attack.attack_results(classifiers, sources, tab_attack.AttackControls(*controls))


def test_attack_follows_eps_and_stays_in_its_ball(tmp_path):
    save_networks(tmp_path)
    store = RunStore(tmp_path)
    photos = str(tmp_path / "photos")
    sources = DataSources.named([photos])
    classifiers = ClassifierSources(store, committed=store.root / "none")
    assert classifiers.match("plain.safetensors") == "hard.safetensors"

    def show(slider, norm="Linf", other=None):
        return attack_results(store, sources, "plain.safetensors", other, photos, 0, None, norm, slider)

    pictures = [show(slider).split("src=")[3] for slider in (0, 8, 64)]
    assert len(set(pictures)) == 3
    assert "No change" in show(0)
    assert show(8, other="hard.safetensors").count("<h4>") == 2
    net = classifiers.load("plain.safetensors")
    chosen = input_images.input_image(net, sources, photos, 0)
    for norm, p in (("Linf", torch.inf), ("L2", 2), ("L1", 1)):
        change = tab_attack.run_attack(net.model, chosen.x, 0, norm, 0.1) - chosen.x
        assert 0 < float(change.flatten().norm(p)) <= 0.1 * (1 + 1e-5)
    said = attack_results(store, sources, "plain.safetensors", None, photos, 600, None, "Linf", 8)
    assert "there is no image 600" in said.lower()
    said = attack_results(store, sources, "plain.safetensors", None, photos, None, None, "Linf", 8)  # emptied
    assert "no image is chosen" in said.lower()
    said = attack_results(store, DataSources(), "plain.safetensors", None, photos, 0, None, "Linf", 8)
    assert "not among the data of this studio" in said and "<img" not in said


def test_a_generator_attacks_beside_pgd_where_it_fits_the_images(tmp_path):
    save_networks(tmp_path)
    photos = str(tmp_path / "photos")
    for name, size in (("fits", 8), ("other", 16)):
        save_network(build_perturber(size=size, channels=1, eps=0.1), tmp_path / f"{name}.safetensors", {})
    store, sources = RunStore(tmp_path), DataSources.named([photos])
    said = attack_results(store, sources, "plain.safetensors", None, photos, 0, None, "Linf", 8)
    assert "plain.safetensors, by fits.safetensors" in said and "one forward pass" in said
    assert "other.safetensors" not in said


def decompression_bomb():
    """A PNG that says it has 100 million pixels."""
    file = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def zip_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


@pytest.mark.parametrize(
    "content, says",
    [
        (b"no picture at all", "cannot be read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "cannot be read"),
        (zip_archive(), "cannot be read"),
        (decompression_bomb(), "100 million pixels"),
        (b"", "0 MB"),
        (bytes(26_000_000), "26 MB"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "cannot be read"),
    ],
    ids=["text", "svg", "zip", "pixels", "empty", "large", "cut"],
)
def test_bad_upload_is_a_message(tmp_path, content, says):
    save_networks(tmp_path)
    store = RunStore(tmp_path)
    (tmp_path / "upload").write_bytes(content)
    upload = str(tmp_path / "upload")
    said = attack_results(store, DataSources(), "plain.safetensors", None, None, 0, upload, "Linf", 8)
    assert says in said and 'class="alarm"' in said and "Traceback" not in said


def test_upload_gets_the_classifiers_size_and_channels(tmp_path):
    save_networks(tmp_path)
    store = RunStore(tmp_path)
    Image.new("RGBA", (60, 40), (255, 0, 0, 255)).save(tmp_path / "red.png")
    net = ClassifierSources(store).load("plain.safetensors")
    x = input_images.uploaded_image(net, str(tmp_path / "red.png")).x
    assert x.shape == (1, 1, 8, 8)
    torch.testing.assert_close(x, torch.full_like(x, 0.299), atol=1e-4, rtol=0)
    red = str(tmp_path / "red.png")
    said = attack_results(store, DataSources(), "plain.safetensors", None, None, 0, red, "L2", 0.5)
    assert "The upload" in said


def test_an_upload_is_translated_and_without_one_the_triples_are_shown(tmp_path):
    store = RunStore(tmp_path)
    assert "no finished translator" in tab_translate.translated(store, None, None)
    net = build_translator("resnet", size=16, channels=3, scale=2, widths=(4,), blocks=0)
    (tmp_path / "run").mkdir()
    save_network(net, tmp_path / "run" / "generator.safetensors", {})
    (name,) = store.networks("translator")
    assert store.networks("generator") == []
    assert "Upload a picture" in tab_translate.translated(store, name, None)
    Image.new("RGB", (6, 4)).save(tmp_path / "run" / "triples.png")
    assert "input, output" in tab_translate.translated(store, name, None)
    Image.new("L", (30, 20), 99).save(tmp_path / "mine.png")
    shown = tab_translate.translated(store, name, str(tmp_path / "mine.png"))
    assert "The upload: 30 x 20." in shown and "Translated: 60 x 40" in shown
    Image.new("L", (700, 7), 99).save(tmp_path / "flat.png")
    assert "The upload is 700 x 7, and a side of 8 or more" in tab_translate.translated(
        store, name, str(tmp_path / "flat.png")
    )
    (tmp_path / "none.png").write_bytes(b"no picture")
    assert "it is not a picture" in tab_translate.translated(store, name, str(tmp_path / "none.png"))


def test_an_upload_is_turned_gray_or_refused_as_the_command_does(tmp_path):
    """A translator of gray images: color is turned gray, which is said; transparency is refused."""
    net = build_translator("resnet", size=16, channels=3, in_channels=1, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {})
    store = RunStore(tmp_path)
    (name,) = store.networks("translator")
    shown = {}
    for picture, color in (("red", (255, 0, 0, 255)), ("gray", (9, 9, 9, 255)), ("clear", (9, 9, 9, 5))):
        Image.new("RGBA", (30, 20), color).save(tmp_path / f"{picture}.png")
        shown[picture] = tab_translate.translated(store, name, str(tmp_path / f"{picture}.png"))
    assert (
        "The upload, in color and turned gray (Rec. 601), as the translator takes gray images: 30 x 20." in shown["red"]
    )
    assert "The upload: 30 x 20." in shown["gray"]
    assert "The upload is partly transparent, and the translator takes opaque gray images" in shown["clear"]


def test_the_middle_of_a_large_upload_is_translated_at_its_white_level(tmp_path):
    net = build_translator("resnet", size=16, channels=1, in_channels=1, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {"white": 4095})
    store = RunStore(tmp_path)
    (name,) = store.networks("translator")
    Image.new("I;16", (600, 9), 4000).save(tmp_path / "deep.png")
    assert "The upload, the middle 512 pixels of it: 512 x 9." in tab_translate.translated(
        store, name, str(tmp_path / "deep.png")
    )
    Image.new("I;16", (600, 9), 5000).save(tmp_path / "deeper.png")
    assert "The upload holds values up to 5,000, above 4,095" in tab_translate.translated(
        store, name, str(tmp_path / "deeper.png")
    )


def test_an_upload_is_refused_where_the_command_refuses_it(tmp_path):
    """16 bits of color whose values are in the lower ones would be black."""
    net = build_translator("resnet", size=16, channels=3, in_channels=3, widths=(4,), blocks=0)
    save_network(net, tmp_path / "generator.safetensors", {})
    store = RunStore(tmp_path)
    (name,) = store.networks("translator")
    (tmp_path / "dark.png").write_bytes(png(16, 2, 8 * struct.pack(">3H", 4000, 2000, 1000)))
    shown = tab_translate.translated(store, name, str(tmp_path / "dark.png"))
    assert "color of 16 bits whose values end below 4,096" in shown


def test_names_outside_the_folder_are_refused(store):
    for name in ("../elsewhere", "/etc", ""):
        with pytest.raises(UserError, match="there is no run"):
            store.folder(name)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"command": "push"}, "cannot be started here"),
        ({"name": "../out"}, "cannot be the name"),
        ({"name": "-x"}, "cannot be the name"),
        ({"data": "--help"}, "not among the data"),
        ({"data": "/"}, "not among the data"),
        ({"recipe": "trian"}, "not a recipe"),
        ({"until": "soon"}, "not a length"),
        ({"name": "one"}, "exists already"),
        ({"command": "harden", "recipe": "", "eps": "much"}, "not a radius"),
    ],
)
def test_invalid_request_is_refused(store, changes, says):
    request = {"command": "train", "data": "mnist5k", "recipe": "quick", "until": "1 minutes", "eps": "", "name": "new"}
    with pytest.raises(UserError, match=says):
        make_processes(store.root).start(store.root, RunRequest(**{**request, **changes}))


def test_invalid_stop_and_resume_are_refused(store):
    processes = make_processes(store.root)
    with pytest.raises(UserError, match="not started from this page"):
        processes.stop(store.folder("one"))
    with pytest.raises(UserError, match="is finished"):
        processes.resume(store.folder("one"))
    fake_run(store.root / "three", command="attack")
    with pytest.raises(UserError, match="cannot be resumed"):
        processes.resume(store.folder("three"))


def until(true, seconds=240.0):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def test_run_is_started_once_stopped_and_not_shortened(tmp_path):
    """How it is resumed and extended, the test in the browser shows."""
    save_networks(tmp_path)
    (tmp_path / "empty").mkdir()
    store, processes = RunStore(tmp_path), make_processes(tmp_path, "photos", "empty")
    processes.start(tmp_path, RunRequest("train", str(tmp_path / "photos"), "mlp", "4 minutes", "", "new"))
    folder = store.folder("new")
    assert processes.alive() == [folder.resolve()]
    until(lambda: (folder / "metrics.jsonl").exists() and store.history("new").step > 0)
    assert "running: " in tab_runs.run_list(store, processes) and tab_runs.count_grids(store, "new")
    with pytest.raises(UserError, match="running already"):
        processes.resume(folder)
    other = make_processes(tmp_path)  # of a second studio on the same folder
    with pytest.raises(UserError, match="not started from this page"):
        other.stop(folder)
    other.resume(folder)
    until(lambda: not other.is_running(folder))
    assert "in use by another process" in tab_runs.run_list(store, other) and processes.is_running(folder)
    assert "asked to stop" in processes.stop(folder)
    until(lambda: not processes.is_running(folder))
    assert store.history("new").info["state"] == "interrupted" and not processes.failures()
    processes.resume(folder, "1 steps")
    until(lambda: not processes.is_running(folder))
    assert "past" in tab_runs.run_list(store, processes) and store.history("new").info["state"] == "interrupted"
    processes.resume(folder, "2M images")
    assert "asked to stop" in processes.stop(folder)  # while it is still starting
    until(lambda: not processes.is_running(folder))
    assert not processes.failures()
    processes.start(tmp_path, RunRequest("classify", str(tmp_path / "empty"), "", "", "", "bad"))
    until(lambda: not processes.is_running(tmp_path / "bad"))
    assert "<b>bad</b>: the folder" in tab_runs.run_list(store, processes)


def test_unavailable_ports_and_hosts_are_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is in use"):
            server.listen("127.0.0.1", port)
    with pytest.raises(UserError, match="no port"):
        server.listen("127.0.0.1", 70_000)
    with pytest.raises(UserError, match="not an address of this machine"):
        server.listen("192.0.2.1", None)


def test_command_refuses_a_file_with_status_2(tmp_path):
    pytest.importorskip("gradio", reason="the studio's extra is not installed")
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "rivals", "studio", str(tmp_path / "file")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is a file" in done.stderr


def test_a_run_that_vanishes_while_runs_are_listed_is_left_out(store, monkeypatch):
    """Removed between the listing of the folder above and its own."""
    import os

    scan, gone = os.scandir, str(store.root / "two")

    def vanishing(path):
        if os.fspath(path).rstrip("/") == gone:
            raise FileNotFoundError(2, "No such file or directory", gone)
        return scan(path)

    (store.root / "one" / "plain").mkdir(exist_ok=True)
    monkeypatch.setattr(os, "scandir", vanishing)
    assert "one" in store.names()
    assert isinstance(store.networks("generator"), list)
