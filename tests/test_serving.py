"""`serve`: the application without Ray, on sockets and in a browser, and once with Ray Serve."""

import asyncio
import base64
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import browser
import numpy as np
import psutil
import pytest
from PIL import Image
from run_folders import TINY_CLASSES, untrained_run_folder

import animalclf
from animalclf.errors import UserError
from animalclf.features.known import fit_distances, fit_scorer
from animalclf.runs import Run

httpx2 = pytest.importorskip("httpx2", reason="not installed")
pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("python_multipart", reason="the extra serve is not installed")
from starlette.testclient import TestClient  # noqa: E402

from animalclf.serving import server  # noqa: E402
from animalclf.serving.answers import Scored, image_answer  # noqa: E402
from animalclf.serving.app import Service, build_app  # noqa: E402
from animalclf.serving.classifier import Classifier  # noqa: E402
from animalclf.serving.limits import Limits, Refused, limited, parse_size  # noqa: E402
from animalclf.serving.page import page  # noqa: E402
from animalclf.serving.uploads import Upload  # noqa: E402

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
LIMITS = Limits(max_upload=300_000, max_images=3, stall_seconds=0.2, upload_seconds=5, answer_seconds=30)


def jpeg(seed: int = 0, width: int = 90, height: int = 60) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG file whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with an untrained model and a temperature."""
    folder = untrained_run_folder(tmp_path_factory.mktemp("serving"))
    fields = {"recipe": "big_cnn", "seed": 0, "epochs": 3, "best_epoch": 3, "workers": 1, "images_per_s": 1.0}
    Run(folder).write_result({"run": folder, "classes": TINY_CLASSES, "temperature": 0.3, **fields})
    return folder


@pytest.fixture(scope="module")
def classify(run):
    classifier = Classifier(run)

    async def classify(upload, explain):
        view = classifier.view(upload)
        if isinstance(view, Scored):
            return view
        (scored,) = classifier.scores([view])
        return classifier.with_heat_map(upload, scored) if explain else scored

    return classify


@pytest.fixture(scope="module")
def app(classify):
    return build_app(Service(classify, TINY_CLASSES, TOKEN, LIMITS))


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


def post(client, *contents, headers=BEARER, path="/predict", name="{}.jpg"):
    files = [("image", (name.format(number), content)) for number, content in enumerate(contents)]
    return client.post(path, files=files, headers=headers)


def test_the_probabilities_are_those_of_the_model(run, client, tmp_path):
    contents = [jpeg(seed, 40 + 30 * seed) for seed in range(3)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    expected = animalclf.load(run, device="cpu").predict_proba(sorted(map(str, tmp_path.iterdir())))
    assert np.ptp(expected[:, 0]) > 0.01  # they differ between images
    as_files = post(client, *contents).json()["images"]
    encoded = {"images": [base64.b64encode(content).decode() for content in contents]}
    as_json = client.post("/predict", json=encoded, headers=BEARER).json()["images"]
    assert [image["name"] for image in as_files] == ["0.jpg", "1.jpg", "2.jpg"]
    for images in (as_files, as_json):
        probabilities = [[image["probabilities"][name] for name in TINY_CLASSES] for image in images]
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        assert [image["class"] for image in images] == [TINY_CLASSES[number] for number in expected.argmax(1)]
        assert all(next(iter(image["probabilities"].values())) == image["confidence"] for image in images)
    (first,) = post(client, contents[0], path="/predict?top=1").json()["images"]
    assert first["probabilities"] == {first["class"]: first["confidence"]}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer "}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}]
)
def test_without_the_token_nothing_is_read(app, client, headers):
    assert client.get("/healthz").status_code == 200

    async def receive():
        raise AssertionError("read")

    status, answer = asyncio.run(request(app, receive, headers))
    assert status == 401 and "Bearer" in answer["error"]


async def request(app, receive, headers=BEARER):
    """Status and JSON of POST /predict with a body from `receive`."""
    sent = []

    async def send(message):
        sent.append(message)

    defaults = {"Content-Type": "multipart/form-data; boundary=x"}
    raw = [(name.lower().encode(), value.encode()) for name, value in {**defaults, **headers}.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": raw}
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_a_large_upload_is_refused_unread(app):
    reads = []

    async def receive():
        reads.append(1)
        return {"type": "http.request", "body": bytes(100_000), "more_body": True}

    status, answer = asyncio.run(request(app, receive, {**BEARER, "Content-Length": "100000000"}))
    assert status == 413 and "0.3 MB" in answer["error"] and not reads
    status, _ = asyncio.run(request(app, receive, {**BEARER, "Content-Type": "application/json"}))
    assert status == 413 and len(reads) == 4  # without a length: counted


def test_an_upload_that_never_stalls_ends_too():
    async def drip():
        for _ in range(100):
            await asyncio.sleep(0.01)
            yield b"x"

    async def read():
        limits = Limits(stall_seconds=60, upload_seconds=0.1)
        return [chunk async for chunk in limited(drip(), None, limits, lambda count: None)]

    with pytest.raises(Refused, match=r"takes longer than 0\.1 s"):
        asyncio.run(read())


def test_memory_of_all_uploads_is_bounded(app):
    """30 clients that each hold 0.29 of 0.3 MB: the limit is 25 times 0.3 MB."""

    async def hold():
        chunks = [bytes(290_000)]

        async def receive():
            if not chunks:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": chunks.pop(), "more_body": True}

        return await request(app, receive, {**BEARER, "Content-Type": "application/json"})

    async def hold_all():
        return await asyncio.gather(*(hold() for _ in range(30)))

    statuses = [status for status, _ in asyncio.run(hold_all())]
    assert statuses.count(408) == 25 and statuses.count(503) == 5
    assert asyncio.run(hold())[0] == 408  # the memory is free again


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"text", "text, not an image"),
        (b"", "empty file"),
        (png_of(30_000, 30_000), "too large"),
        (jpeg()[:700], "truncated"),
    ],
)
def test_an_unreadable_image(client, content, reason):
    alone = post(client, content)
    assert alone.status_code == 422 and alone.json()["error"].startswith(f"0.jpg: {reason}")
    assert "\n" not in alone.json()["error"]
    several = post(client, jpeg(), content)
    good, bad = several.json()["images"]
    assert several.status_code == 200 and good["class"] and bad["error"].startswith(reason) and "class" not in bad


MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}


def form(name: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="i"; filename="' + name + b'"\r\n\r\ntext\r\n--x--\r\n'


def multipart(charset: str) -> dict[str, str]:
    return {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}


@pytest.mark.parametrize(
    "headers, body, status, reason",
    [
        ({"Content-Type": "image/jpeg"}, b"x", 415, "multipart"),
        ({"Content-Type": "multipart/form-data"}, b"--x", 400, "boundary"),
        (MULTIPART, b"--y\r\n", 400, "multipart"),
        (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--x--\r\n', 400, "no images"),
        (MULTIPART, b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\ncut', 400, ""),
        (JSON, b"{", 400, "JSON"),
        (JSON, b"[" * 100_000, 400, "JSON"),
        (JSON, b'{"images": [1]}', 400, "JSON"),
        (JSON, b'{"images": []}', 400, "no images"),
        (JSON, b'{"images": ["/etc/passwd"]}', 400, "not base64"),
        (JSON, b'{"images": ["file:///etc/passwd"]}', 400, "not base64"),
        (JSON, b'{"images": ["http://127.0.0.1/x.jpg"]}', 400, "not base64"),
        (JSON, b'{"images": ["", "", "", ""]}', 413, "at most 3"),
        (multipart("undefined"), form(b"a.jpg"), 400, "charset"),
        (multipart("punycode"), form(b"\xff.jpg"), 400, "charset"),
    ],
)
def test_a_wrong_request_gets_one_line(client, headers, body, status, reason):
    response = client.post("/predict", content=body, headers=BEARER | headers)
    assert response.status_code == status
    assert reason in response.json()["error"] and "\n" not in response.json()["error"]


@pytest.mark.parametrize("charset, name", [("unicode_escape", rb"\ud800.jpg"), ("utf-7", b"+2AA-.jpg")])
def test_a_name_that_is_no_text_has_question_marks(client, charset, name):
    response = client.post("/predict", content=form(name), headers=BEARER | multipart(charset))
    assert response.status_code == 422 and response.json()["error"].startswith("?.jpg: text")


def test_base64_may_have_line_breaks(client):
    encoded = {"images": [base64.encodebytes(jpeg()).decode().replace("\n", "\r\n")]}
    (image,) = client.post("/predict", json=encoded, headers=BEARER).json()["images"]
    assert image["class"] == post(client, jpeg()).json()["images"][0]["class"]


@pytest.mark.parametrize("query", ["top=0", "top=-1", "top=x", "top=", "top=²", f"top={'9' * 5000}", "explain=yes"])
def test_a_wrong_query_is_refused(client, query):
    assert post(client, jpeg(), path=f"/predict?{query}").status_code == 400


def test_known_is_that_of_the_score(client, run, monkeypatch):
    """With a score that is fitted on the features of noise, and without one."""
    assert "known" not in post(client, jpeg()).json()["images"][0]
    model, seeds = animalclf.load(run, device="cpu"), range(100, 116)
    noise = [np.array(Image.open(io.BytesIO(jpeg(seed)))) for seed in seeds]
    features, probabilities = model.features(noise), model.predict_proba(noise)
    distances = fit_distances(features[:12], np.arange(12) % 3)
    scorer = fit_scorer(distances, distances(features[12:]), probabilities[12:])
    flat = io.BytesIO()
    Image.new("RGB", (90, 60), "red").save(flat, "PNG")
    classifier = Classifier(run)
    classifier.scorer = scorer
    uploads = [Upload("", content) for content in (jpeg(113), flat.getvalue())]
    views = [classifier.view(upload) for upload in uploads]
    scores = scorer.score(
        model.features([noise[13], np.array(Image.open(flat))]),
        model.predict_proba([noise[13], np.array(Image.open(flat))]),
    )
    answers = [image_answer("", scored, TINY_CLASSES, 1) for scored in classifier.scores(views)]
    np.testing.assert_allclose([answer["known_score"] for answer in answers], scores, rtol=1e-4)
    assert [answer["known"] for answer in answers] == (scores >= 0).tolist() == [True, False]


def test_a_damaged_score_leaves_answers_without_known(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "known.npz").write_bytes(b"damaged")
    classifier = Classifier(str(copy))
    (scored,) = classifier.scores([classifier.view(Upload("", jpeg()))])
    assert "known" not in image_answer("", scored, TINY_CLASSES, 1)


def test_a_heat_map_on_request(client, run, monkeypatch):
    plain, explained = (
        post(client, jpeg(), path=path).json()["images"][0] for path in ("/predict", "/predict?explain=1")
    )
    assert "heat_map" not in plain and {**plain, "heat_map": explained["heat_map"]} == explained
    data = base64.b64decode(explained["heat_map"].removeprefix("data:image/jpeg;base64,"))
    assert (
        np.abs(
            np.array(Image.open(io.BytesIO(data))).astype(int)
            - animalclf.load(run).explain(np.array(Image.open(io.BytesIO(jpeg()))))[0].overlay
        ).mean()
        < 8
    )
    bad = post(client, b"text", path="/predict?explain=1")
    assert bad.status_code == 422 and "heat_map" not in bad.json()["images"][0]

    def refuse(*_):
        raise UserError("this network has no maps")

    monkeypatch.setattr(Classifier, "explain", refuse)
    without = post(client, jpeg(), path="/predict?explain=1").json()["images"][0]
    assert without == {**plain, "heat_map_error": "this network has no maps"}


def test_other_paths_methods_and_names(client):
    assert client.get("/predict").status_code == 405 and client.get("/../etc/passwd").status_code == 404
    (image,) = post(client, jpeg(), name="<b>../../x.jpg").json()["images"]
    assert "class" in image


def test_an_error_of_the_model_is_one_line_and_no_detail(capsys):
    async def fail(upload, explain):
        raise RuntimeError("secret detail")

    client = TestClient(build_app(Service(fail, ["a"], TOKEN, LIMITS)), raise_server_exceptions=False)
    response = post(client, jpeg())
    assert response.status_code == 500 and "secret" not in response.text
    assert "RuntimeError: secret detail" in capsys.readouterr().err


def test_the_page_fetches_nothing_from_elsewhere(client):
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert response.status_code == 200 and "unsafe" not in policy and "default-src 'none'" in policy
    assert not re.search(r"(?:https?:)?//\w+\.|@import|url\(", page())


@pytest.fixture
def serving():
    """An application whose images are all class 1, on a socket."""

    async def classify(upload, explain):
        await asyncio.sleep(0.01)
        return Scored(np.array([0.1, 0.7, 0.2], np.float32))

    app = build_app(Service(classify, TINY_CLASSES, TOKEN, replace(LIMITS, stall_seconds=2)))
    with server.Server("", server.listen("127.0.0.1", 0), app, server.Token(TOKEN), lambda: None) as running:
        yield running


def test_many_clients_and_some_that_stop_sending(serving, monkeypatch):
    monkeypatch.setattr(server, "SILENT_SECONDS", 3)
    address = ("127.0.0.1", int(serving.url.rpartition(":")[2]))
    stalled = [socket.create_connection(address) for _ in range(60)]
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    for number, connection in enumerate(stalled):
        if number % 3:  # others send nothing, or half of the headers
            connection.sendall(head.encode() if number % 3 == 1 else f"{head}Content-Length: 99\r\n\r\nx".encode())
    content = jpeg()

    async def classify_all():
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(trust_env=False, timeout=60, headers=BEARER, limits=limits) as client:
            posts = [client.post(f"{serving.url}/predict", files={"image": ("x", content)}) for _ in range(200)]
            return {response.status_code for response in await asyncio.gather(*posts)}

    assert asyncio.run(classify_all()) == {200}
    for connection, answer in zip(stalled[:3], (b"", b"", b"HTTP/1.1 408"), strict=True):
        connection.settimeout(30)
        assert connection.recv(12) == answer
    for connection in stalled:
        connection.close()


def test_a_server_stops_and_frees_its_port(app):
    stopped = []
    running = server.Server("", server.listen("127.0.0.1", 0), app, server.Token(TOKEN), lambda: stopped.append(1))
    port = int(running.url.rpartition(":")[2])
    with pytest.raises(UserError, match=rf"127.0.0.1:{port}: the port is in use; name another --port"):
        server.listen("127.0.0.1", port)
    waiting = threading.Thread(target=running.wait)
    waiting.start()
    running.stop()
    running.stop()
    waiting.join(10)
    assert not waiting.is_alive() and stopped == [1]
    server.listen("127.0.0.1", port).close()


def test_hosts():
    for host, port in (("no.such.host.invalid", 0), ("203.0.113.1", 0), ("x" * 70, 0)):
        with pytest.raises(UserError, match="cannot listen on"):
            server.listen(host, port)
    with pytest.raises(UserError, match="--port 70000: the largest is 65535"):
        server.listen("127.0.0.1", 70_000)
    with server.listen("0.0.0.0", 0) as everywhere, server.listen("localhost", 0) as here:
        assert server.is_private(here) and not server.is_private(everywhere)


def test_tokens(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(server.TOKEN_VARIABLE, raising=False)
    new = server.find_token(None, None)
    assert len(new.value) >= 32 and new.source == "" and new != server.find_token(None, None)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    monkeypatch.setenv(server.TOKEN_VARIABLE, "f" * 20)
    assert server.find_token(None, str(file)) == (TOKEN, str(file)) and not capsys.readouterr().err
    assert server.find_token(None, None) == ("f" * 20, server.TOKEN_VARIABLE)
    file.chmod(0o644)
    server.find_token(None, str(file))
    assert "chmod 600" in capsys.readouterr().err
    for content in (b"short", b"", b"two words of a token", "ééééééééééééééééé".encode(), b"\xff" * 20):
        file.write_bytes(content)
        with pytest.raises(UserError, match=re.escape(str(file))):
            server.find_token(None, str(file))
    with pytest.raises(UserError, match="No such file"):
        server.find_token(None, str(tmp_path / "none"))


def test_sizes_and_numbers_of_replicas():
    from animalclf.serving.deployment import Replicas

    assert [parse_size(text) for text in ("20MB", "1.5 kb", "1GB")] == [20_000_000, 1500, 10**9]
    assert Replicas.parse("1:4") == Replicas(1, 4) and Replicas.parse("3") == Replicas(3, 3)
    for text in ("20", "0MB", "-1MB", "MB", "20 TB"):
        with pytest.raises(UserError, match="--max-upload"):
            parse_size(text)
    for text in ("0", "4:1", "0:2", "x", "1:", "99999"):
        with pytest.raises(UserError, match="--replicas"):
            Replicas.parse(text)


def test_an_image_is_sent_again_when_its_replica_dies(monkeypatch):
    from ray.exceptions import ActorDiedError

    from animalclf.serving import deployment
    from animalclf.serving.limits import Refused

    monkeypatch.setattr(deployment, "PAUSE_SECONDS", 0)
    attempts = []

    async def send():
        attempts.append(1)
        if len(attempts) % deployment.ATTEMPTS:
            raise ActorDiedError
        return Scored(error="x")

    assert asyncio.run(deployment.persistent(send)).error == "x" and len(attempts) == deployment.ATTEMPTS

    async def always():
        raise ActorDiedError

    with pytest.raises(Refused, match="died 4 times"):
        asyncio.run(deployment.persistent(always))


def test_refused_before_ray_starts(run, untrained_run, tmp_path, monkeypatch):
    from animalclf.serving import serve

    with pytest.raises(UserError, match="not finished"):
        animalclf.serve(untrained_run)
    (tmp_path / "comparison.yaml").write_text("{}")
    with pytest.raises(UserError, match="is a comparison"):
        animalclf.serve(tmp_path)
    with pytest.raises(UserError, match="max_upload"):
        animalclf.serve(run, max_upload="much")
    with pytest.raises(UserError, match="replicas: a whole number"):
        animalclf.serve(run, replicas=0)
    with server.listen("127.0.0.1", 0) as used, pytest.raises(UserError, match="in use"):
        animalclf.serve(run, port=used.getsockname()[1])
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"starlette.*not installed.*animalclf\[serve\]"):
        animalclf.serve(run)


WIDE = "document.documentElement.scrollWidth > innerWidth"
SMALL = """[...document.querySelectorAll('button, .drop')].some(e => e.checkVisibility()
  && e.getBoundingClientRect().height < 30)"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"


NUMBERS = ["0", "1", "2"]  # names of classes


async def use_page(url, files, profile, width, theme):
    """Enter a wrong and the right token, choose the files, look at a heat map, by the keyboard. Returns the browser's
    events and a screenshot."""
    async with browser.open_tab(profile) as tab:
        await tab.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        await tab.call("Page.navigate", url=f"{url}/#wrong-token")
        await tab.wait_for("document.readyState === 'complete' && location.hash === ''")
        assert not await tab.evaluate("document.querySelector('#ask').checkVisibility()")
        await tab.choose_files("#files", *files)
        await tab.wait_for("document.querySelector('#status').textContent === 'This token is wrong.'")
        await tab.evaluate(f"document.activeElement.value = '{TOKEN}'")  # the focus is there
        await tab.press_enter()
        await tab.wait_for("document.querySelectorAll('#answers li').length === 2")
        bad, good = await tab.evaluate("[...document.querySelectorAll('#answers li')].map(e => e.innerText)")
        assert "Not readable" in bad and "text, not an image" in bad and "speaks" not in bad
        assert re.search(r"\d, \d+\.\d %", good) and files[0].name in good
        bars = await tab.evaluate("[...document.querySelectorAll('.bar span')].map(e => e.offsetWidth)")
        assert len(bars) == 3 and bars == sorted(bars, reverse=True) and bars[0] > bars[-1]
        await tab.evaluate("document.querySelector('.why button').focus()")
        await tab.press_enter()
        await tab.wait_for("document.querySelector('.why button').getAttribute('aria-pressed') === 'true'")
        await tab.wait_for("document.querySelectorAll('#answers img')[1].naturalWidth === 300")
        assert (await tab.evaluate("document.querySelectorAll('#answers img')[1].src")).startswith("data:image/jpeg")
        assert not await tab.evaluate("document.querySelector('#ask').checkVisibility()")
        assert not await tab.evaluate(WIDE) and not await tab.evaluate(SMALL)
        assert (await tab.evaluate(BACKGROUND) < 99) == (theme == "dark")
        return tab.events, await tab.screenshot()


@pytest.mark.parametrize("width, theme", [(390, "dark"), (1440, "light")])
def test_in_a_browser(classify, tmp_path, width, theme):
    if not browser.program():
        pytest.skip("no Chromium on this machine")
    # JavaScript sorts the keys of an object that are integers.
    app = build_app(Service(classify, NUMBERS, TOKEN, LIMITS))
    (tmp_path / "a very long name without meaning but with an end.jpg").write_bytes(jpeg(1, 300, 200))
    (tmp_path / "text.jpg").write_bytes(b"text")
    files = sorted(tmp_path.iterdir())
    with server.Server("", server.listen("127.0.0.1", 0), app, server.Token(TOKEN), lambda: None) as running:
        events, screenshot = asyncio.run(use_page(running.url, files, tmp_path / "profile", width, theme))
    (tmp_path / "page.png").write_bytes(screenshot)  # pytest shows the folder of a failed test
    requests = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert len(requests) > 3 and all(url.startswith((running.url, "data:", "blob:")) for url in requests)
    problems = [event for event in events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    texts = [event["params"]["entry"]["text"] for event in problems if "entry" in event["params"]]
    assert all("401" in text or "422" in text for text in texts) and len(texts) == len(problems)


@pytest.mark.ray
def test_with_ray_serve_no_accepted_request_is_lost(run):
    """The load starts a second replica; one is killed; SIGTERM leaves no process."""
    command = [sys.executable, "-m", "animalclf.cli", "serve", run, "--port", "0", "--replicas", "1:2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not (lines and lines[-1].startswith("serving ")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        url, token = re.fullmatch(r"serving (\S+)  token (\S+)\n", lines[-1]).groups()
        headers = {"Authorization": f"Bearer {token}"}
        contents = [jpeg(seed) for seed in range(8)]
        model = animalclf.load(run, device="cpu")
        expected = [
            model.predict_proba(np.array(Image.open(io.BytesIO(content))))[0].max().item() for content in contents
        ]
        assert len(replicas_of(process)) == 1
        answers, ended = [], threading.Event()

        def load(number):
            with httpx2.Client(trust_env=False, timeout=60, headers=headers) as client:
                while not ended.is_set():
                    response = post(client, *[contents[number]] * 4, headers={}, path=f"{url}/predict")
                    confidences = [image["confidence"] for image in response.json()["images"]]
                    answers.append((response.status_code, confidences, number))

        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(load, number) for number in range(8)]
            try:
                wait_for(lambda: len(replicas_of(process)) == 2)
                count = len(answers)
                wait_for(lambda: len(answers) > count + 20)
                family = psutil.Process(process.pid).children(recursive=True)
                replicas_of(process)[0].kill()
                count = len(answers)
                wait_for(lambda: len(answers) > count + 20)
            finally:
                ended.set()
            for finished in clients:
                finished.result()
        assert {status for status, *_ in answers} == {200}
        assert all(confidences == pytest.approx([expected[number]] * 4, abs=1e-6) for _, confidences, number in answers)
        assert httpx2.post(f"{url}/predict", trust_env=False).status_code == 401
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert token not in process.stderr.read()


def replicas_of(process):
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if "ServeReplica" in " ".join(child.cmdline())]


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)
