"""The studio answers nobody but its own pages: every route, foreign hosts, foreign origins, missing tokens, uploads."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from helpers.fake_runs import fake_run
from rivals.base.errors import UserError

pytest.importorskip("gradio", reason="the studio's extra is not installed: pip install 'rivals[studio]'")
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rivals.studio.access import AccessControl, AllowedHosts
from rivals.studio.app import Studio, build_app
from rivals.studio.classifier_sources import ClassifierSources
from rivals.studio.data_sources import DataSources
from rivals.studio.processes import RunProcesses
from rivals.studio.run_store import RunStore
from rivals.studio.uploads import MAX_AT_ONCE, MAX_BODY, MAX_KEPT, UploadLimits

TOKEN = "the token of this studio"
HOST = "127.0.0.1:7860"
PAGE = f"http://{HOST}"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """All routes of the page, without access control."""
    home, sources = tmp_path_factory.mktemp("studio"), DataSources()
    fake_run(home / "runs" / "one", steps=20)

    async def build():  # outside of a loop Gradio makes some of its own, and leaves them open
        store = RunStore(home / "runs")
        return build_app(Studio(store, RunProcesses(home / "logs", sources), sources, ClassifierSources(store)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(home / "uploads"))
        yield asyncio.run(build())


def client(app, host="127.0.0.1", allow=(), base=PAGE):
    return TestClient(AccessControl(app, AllowedHosts.of(host, allow), TOKEN), base_url=base)


def answer(request):
    return PlainTextResponse("in")


async def talk(websocket):
    await websocket.accept()


LITTLE = Starlette(routes=[Route("/", answer, methods=["GET", "POST"]), WebSocketRoute("/talk", talk)])


def paths(routes, prefix=""):
    """Each route that an app has: method and path, with something for each parameter."""
    for route in routes:
        nested = getattr(route, "original_router", route)  # FastAPI keeps an included router as one route
        if hasattr(nested, "routes"):
            yield from paths(nested.routes, prefix + getattr(route, "path", ""))
        else:
            path = re.sub(r"{[^}]*}", "x", prefix + route.path)
            yield from ((method, path) for method in sorted(route.methods or ()))


@pytest.mark.parametrize(
    "headers, says",
    [
        ({"host": "evil.test:7860"}, "not at the host 'evil.test:7860'"),
        ({"host": "evil.test:7860", "origin": "http://evil.test:7860"}, "not at the host"),
        ({"origin": "http://evil.test"}, "from another page"),
        ({"origin": "null"}, "from another page"),
        ({"cookie": ""}, "token is missing"),
    ],
    ids=["host", "rebound", "origin", "null", "token"],
)
def test_no_route_answers_strangers(app, headers, says):
    found = sorted(set(paths(app.routes)))
    assert {("POST", "/gradio_api/upload"), ("POST", "/gradio_api/queue/join"), ("GET", "/studio/updates")} < set(found)
    visitor = client(app)
    visitor.get(f"/studio/updates?token={TOKEN}").raise_for_status()  # leaves the cookie: only one thing is wrong
    for method, path in found:
        refused = visitor.request(method, path, headers=headers)
        assert refused.status_code == 403, (method, path)
        assert says in refused.text or method == "HEAD"


def test_foreign_multipart_upload_leaves_no_file(app, tmp_path):
    visitor = client(UploadLimits(app, tmp_path))
    visitor.get(f"/studio/updates?token={TOKEN}")
    file = {"files": ("a.png", b"picture", "image/png")}
    assert visitor.post("/gradio_api/upload", files=file, headers={"origin": "http://evil.test"}).status_code == 403
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    assert not [path for path in uploads.rglob("*") if path.is_file()]
    (stored,) = visitor.post("/gradio_api/upload", files=file, headers={"origin": PAGE}).json()
    assert Path(stored).is_relative_to(uploads) and Path(stored).read_bytes() == b"picture"


def test_token_in_the_address_is_kept_in_a_strict_cookie():
    visitor = client(LITTLE)
    assert visitor.get("/?token=guess").status_code == 403
    assert visitor.get("/?token=").status_code == 403
    assert visitor.get("/").status_code == 403
    opened = visitor.get(f"/?token={TOKEN}")
    assert opened.text == "in" and "HttpOnly; SameSite=Strict" in opened.headers["set-cookie"]
    again = visitor.get("/")
    assert again.text == "in" and "set-cookie" not in again.headers
    other = TestClient(AccessControl(LITTLE, AllowedHosts.of("127.0.0.1"), "another token"), base_url=PAGE)
    assert other.get("/?token=another token").headers["set-cookie"].split("=")[0] not in visitor.cookies


@pytest.mark.parametrize(
    "served_at, allow, host, is_allowed",
    [
        ("127.0.0.1", (), "127.0.0.1:7860", True),
        ("127.0.0.1", (), "LOCALHOST:9000", True),  # through a tunnel
        ("127.0.0.1", (), "192.168.0.7:7860", False),
        ("127.0.0.1", (), "127.0.0.1.evil.test", False),
        ("127.0.0.1", (), "evil.test#@127.0.0.1", False),
        ("127.0.0.1", (), "user@127.0.0.1:7860", False),
        ("127.0.0.1", (), "127.0.0.1:port", False),
        ("127.0.0.1", (), "", False),
        ("127.0.0.1", ("Studio.Example.org",), "studio.example.org", True),
        ("127.0.0.1", ("studio.example.org",), "example.org", False),
        ("192.168.0.7", (), "192.168.0.7:80", True),
        ("192.168.0.7", (), "localhost", False),
        ("0.0.0.0", (), "10.1.2.3:7860", True),
        ("0.0.0.0", (), "[fe80::1]:7860", True),
        ("0.0.0.0", (), "localhost:7860", True),
        ("0.0.0.0", (), "evil.test:7860", False),
    ],
)
def test_hosts_are_those_of_the_address_and_the_allowed_ones(served_at, allow, host, is_allowed):
    visitor = client(LITTLE, served_at, allow)
    status = visitor.get(f"/?token={TOKEN}", headers={"host": host}).status_code
    assert status == (200 if is_allowed else 403)


@pytest.mark.parametrize("wrong", ["http://a.test", "a.test:80", "a b/c", ""])
def test_allowed_host_that_is_no_name_is_refused(wrong):
    with pytest.raises(UserError, match="not the name of a host"):
        AllowedHosts.of("127.0.0.1", [wrong])


def test_page_behind_a_proxy_may_send_requests():
    visitor = client(LITTLE, allow=["studio.example.org"], base="http://studio.example.org")
    sent = visitor.post(f"/?token={TOKEN}", headers={"origin": "https://studio.example.org"})
    assert sent.text == "in"


def test_websockets_are_closed():
    with pytest.raises(WebSocketDisconnect), client(LITTLE).websocket_connect(f"/talk?token={TOKEN}"):
        pass


def test_large_and_unannounced_bodies_are_refused(tmp_path):
    visitor = TestClient(UploadLimits(LITTLE, tmp_path))
    assert visitor.post("/", content=b"x").text == "in"
    assert visitor.post("/", content=b"", headers={"content-length": str(MAX_BODY + 1)}).status_code == 413
    assert visitor.post("/", content=iter([b"x", b"y"])).status_code == 411


def test_only_the_newest_uploads_are_kept(tmp_path):
    count = 0

    def store(request):
        nonlocal count
        path = tmp_path / f"folder-{count}" / "upload"
        path.parent.mkdir()
        path.touch()
        os.utime(path, ns=(count, count))
        count += 1
        return PlainTextResponse("stored")

    visitor = TestClient(UploadLimits(Starlette(routes=[Route("/a/upload", store, methods=["POST"])]), tmp_path))
    for _ in range(MAX_KEPT + 5):
        visitor.post("/a/upload")
    kept = {path.parent.name for path in tmp_path.rglob("upload")}
    assert kept == {f"folder-{number}" for number in range(5, MAX_KEPT + 5)}


def test_few_uploads_are_received_at_once(tmp_path):
    deepest = []

    def store(request):
        if len(deepest) <= MAX_AT_ONCE:
            deepest.append(visitor.post("/upload").status_code)
        return PlainTextResponse("stored")

    visitor = TestClient(UploadLimits(Starlette(routes=[Route("/upload", store, methods=["POST"])]), tmp_path))
    assert visitor.post("/upload").status_code == 200
    assert deepest[0] == 503 and set(deepest[1:]) <= {200, 503}
    assert visitor.post("/upload").status_code == 200


def test_data_are_those_named_at_the_start(tmp_path):
    (tmp_path / "photos" / "inside").mkdir(parents=True)
    (tmp_path / "faces.zip").touch()
    sources = DataSources.named([str(tmp_path / "photos"), str(tmp_path / "faces.zip")])
    assert sources.check("mnist5k") == "mnist5k"
    assert sources.check(sources.find("photos")) == str(tmp_path / "photos")
    assert sources.check(sources.find("faces")) == str(tmp_path / "faces.zip")
    for other in (str(tmp_path), str(tmp_path / "photos" / ".."), "/", "photos", "", "--help", sources.find("cats")):
        with pytest.raises(UserError, match="not among the data of this studio"):
            sources.check(other)
    with pytest.raises(UserError, match="no folder or zip"):
        DataSources.named([str(tmp_path / "photo")])
