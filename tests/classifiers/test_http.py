"""A classifier behind a real local server with planted failures: a failed request is never a vote."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert import certify
from smoothcert.classifiers import BlackBoxClassifier, HttpClassifier, load
from smoothcert.classifiers.http import one_png
from smoothcert.datasets import ArrayDataset
from smoothcert.engine.specify import component
from smoothcert.errors import EndpointError, InvalidInput, ModelOutputError
from smoothcert.runlog import open_run
from smoothcert.smoothing import SmoothedClassifier

CLASSES = ("dark", "bright")
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Service:
    """Says whether pictures are dark or bright; ``plan`` may answer a request otherwise, by its number."""

    plan: Callable[[int], Answer | None] = lambda number: None
    pictures: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    under_way: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def answer(self, body: bytes, headers: dict[str, str]) -> Answer:
        with self.lock:
            number = len(self.headers)
            self.headers.append(headers)
            self.starts.append(time.monotonic())
        planned = self.plan(number)
        if planned is not None:
            return planned
        if headers["Content-Type"] == "image/png":
            found = [np.asarray(Image.open(io.BytesIO(body)))]
        else:
            coded = json.loads(body)["images"]
            found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in coded]
        with self.lock:
            self.pictures += found
        labels = [CLASSES[int(picture.mean() > 127)] for picture in found]
        return 200, {}, json.dumps({"labels": labels}).encode()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("smoothcert.classifiers.requests._FIRST_WAIT", 0.02)
    made = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with made.lock:
                made.under_way += 1
                made.most = max(made.most, made.under_way)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, content = made.answer(body, dict(self.headers))
            with made.lock:
                made.under_way -= 1
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has left

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}/classify"
    yield made
    server.shutdown()
    server.server_close()


def levels(*values: float, channels: int = 3) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, channels, 4, 4)


def test_labels_come_back_in_the_order_of_the_images(service: Service) -> None:
    classifier = HttpClassifier(service.url, classes=CLASSES, images=2)
    values = [0.1, 0.9, 0.8, 0.2, 0.7, 0.3, 0.9]
    answers = classifier(levels(*values))
    assert answers.dtype == torch.int64
    assert answers.tolist() == [int(value > 0.5) for value in values]
    assert len(service.headers) == 4


def test_pictures_are_clipped_and_rounded(service: Service) -> None:
    HttpClassifier(service.url, classes=CLASSES)(levels(-0.4, 1.7, 0.5, 100.4 / 255, float("nan")))
    assert [int(picture.flat[0]) for picture in service.pictures] == [0, 255, 128, 100, 0]
    colours = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    HttpClassifier(service.url, classes=CLASSES)(colours)
    assert service.pictures[-1][0, 0].tolist() == [255, 128, 0]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_protocols_are_two_functions(service: Service, channels: int) -> None:
    classifier = HttpClassifier(service.url, classes=CLASSES, encode=one_png, images=1)
    assert classifier(levels(0.1, 0.9, channels=channels)).tolist() == [0, 1]
    assert {headers["Content-Type"] for headers in service.headers} == {"image/png"}


def failing(times: int, answer: Answer) -> Callable[[int], Answer | None]:
    return lambda number: answer if number < times else None


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_failures_that_pass_are_tried_again_and_are_no_votes(service: Service, status: int) -> None:
    service.plan = failing(2, (status, {}, b'{"labels": ["dark", "dark"]}'))
    classifier = HttpClassifier(service.url, classes=CLASSES)
    assert classifier(levels(0.9, 0.8)).tolist() == [1, 1]
    assert len(service.headers) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_to(service: Service, form: str) -> None:
    from email.utils import formatdate

    wait = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    service.plan = failing(1, (429, {"Retry-After": wait}, b""))
    HttpClassifier(service.url, classes=CLASSES)(levels(0.9))
    assert service.starts[1] - service.starts[0] >= 0.99


def test_an_endpoint_that_asks_for_too_long_a_wait_is_down(service: Service) -> None:
    service.plan = failing(9, (429, {"Retry-After": "86400"}, b""))
    with pytest.raises(EndpointError, match="status 429"):
        HttpClassifier(service.url, classes=CLASSES)(levels(0.9))
    assert len(service.headers) == 1


def test_a_hang_is_cut_and_tried_again(service: Service) -> None:
    def hang(number: int) -> Answer | None:
        if number == 0:
            time.sleep(1.5)
        return None

    service.plan = hang
    started = time.monotonic()
    assert HttpClassifier(service.url, classes=CLASSES, timeout=0.3)(levels(0.9)).tolist() == [1]
    assert time.monotonic() - started < 1.4


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>busy</html>", "cannot be read"),
        (b'{"result": 1}', "cannot be read"),
        (b"[1, 2]", "cannot be read"),
        (b'{"labels": ["dark"]}', "1 labels for 2 images"),
        (b'{"labels": ["dark", "dark", "dark"]}', "3 labels for 2 images"),
        (b'{"labels": ["dark", "brigth"]}', "perhaps 'bright'"),
        (b'{"labels": [0, 2]}', "none of the 2 classes"),
        (b'{"labels": [0, -1]}', "none of the 2 classes"),
        (b'{"labels": [0, 0.5]}', "none of the 2 classes"),
        (b'{"labels": [true, null]}', "none of the 2 classes"),
    ],
)
def test_answers_that_mean_nothing_are_one_clear_error(service: Service, answer: bytes, message: str) -> None:
    service.plan = lambda number: (200, {}, answer)
    with pytest.raises(ModelOutputError, match=message):
        HttpClassifier(service.url, classes=CLASSES)(levels(0.1, 0.9))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, {}, b""), "refused the request .status 401"),
        ((404, {}, b""), "status 404"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "redirects elsewhere"),
        ((302, {"Location": "/elsewhere"}, b""), "redirects elsewhere"),
        ((307, {"Location": "http://example.org/"}, b""), "redirects elsewhere"),
        ((200, {}, b" " * (5 << 20)), "longer than"),
    ],
)
def test_refusals_are_not_tried_again(service: Service, answer: Answer, message: str) -> None:
    service.plan = lambda number: answer
    with pytest.raises(EndpointError, match=message):
        HttpClassifier(service.url, classes=CLASSES)(levels(0.1))
    assert len(service.headers) == 1


def test_an_endpoint_that_stays_down_is_one_clear_error(service: Service) -> None:
    service.plan = lambda number: (503, {}, b"")
    with pytest.raises(EndpointError, match=r"status 503; 3 attempts.*everything finished is kept"):
        HttpClassifier(service.url, classes=CLASSES, retries=2)(levels(0.1))
    with pytest.raises(EndpointError, match="refused"):
        HttpClassifier("http://127.0.0.1:9/", classes=CLASSES, retries=1)(levels(0.1))


def test_the_rate_holds_over_threads_and_requests_under_way_are_bounded(service: Service) -> None:
    service.plan = lambda number: time.sleep(0.03)  # type: ignore[func-returns-value]
    classifier = HttpClassifier(service.url, classes=CLASSES, images=1, rate=50, concurrency=2)
    threads = [threading.Thread(target=classifier, args=(levels(0.1, 0.9, 0.2),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(service.starts) == 12
    assert max(service.starts) - min(service.starts) >= 11 / 50 - 0.03
    assert service.most <= 2


def data() -> ArrayDataset:
    images = np.stack([np.full((3, 4, 4), level, np.uint8) for level in (40, 200, 90)])
    return ArrayDataset(images, [0, 1, 0], levels=255, classes=CLASSES, name="levels")


def test_a_run_that_lost_its_endpoint_continues_and_counts_every_draw_once(
    service: Service, tmp_path: Path
) -> None:
    classifier = HttpClassifier(service.url, classes=CLASSES, retries=0, images=32, concurrency=1)
    smoothed = SmoothedClassifier(classifier, 0.05)
    service.plan = lambda number: (500, {}, b"") if number >= 8 else None
    with pytest.raises(EndpointError):
        certify(smoothed, data(), tmp_path, n0=16, n=64, batch=32, workers=1)
    kept = sum(row.draws for row, _ in open_run(tmp_path).tallies())
    assert 0 < kept < 3 * 80
    service.plan = lambda number: (500, {}, b"") if number % 3 == 0 else None
    patient = SmoothedClassifier(HttpClassifier(service.url, classes=CLASSES, retries=3, images=32), 0.05)
    found = certify(patient, data(), tmp_path, n0=16, n=64, batch=32, workers=2)
    assert [row.predicted for row in found.outcomes] == [0, 1, 0]
    assert sum(row.draws for row, _ in open_run(tmp_path).tallies()) == 3 * 80


def test_secrets_are_sent_and_neither_stored_nor_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOOTHCERT_TEST_KEY", "hunter2")
    classifier = load(f"{service.url}?model=small#key=SMOOTHCERT_TEST_KEY&classes=dark,bright&rate=1e3")
    assert classifier(levels(0.9)).tolist() == [1]
    assert service.headers[0]["Authorization"] == "Bearer hunter2"
    stored = component(classifier)
    assert "hunter2" not in stored.model_dump_json()
    assert stored.source.endswith("/classify?model=...")
    assert stored.sha256 is None
    service.plan = lambda number: (403, {}, b"")
    with pytest.raises(EndpointError) as caught:
        classifier(levels(0.9))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://me:hunter2@host/x", "https://host/x?api_key=hunter2&size=3"])
def test_an_address_with_a_secret_is_refused_by_name_and_stripped_in_python(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"#key=") as caught:
        load(url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in HttpClassifier(url).source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("http://", "no address"),
        ("https://host/#rate=fast", "no number"),
        ("https://host/#rate=0", "no request could be made"),
        ("https://host/#images=0", "at least one"),
        ("https://host/#classes=one", "two named classes"),
    ],
)
def test_what_cannot_be_asked_is_refused(name: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load(name)


def test_a_missing_key_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMOOTHCERT_TEST_KEY", raising=False)
    with pytest.raises(InvalidInput, match="export SMOOTHCERT_TEST_KEY"):
        load("http://127.0.0.1:9/#key=SMOOTHCERT_TEST_KEY")(levels(0.1))


def test_a_function_of_pictures_is_a_classifier() -> None:
    seen: list[Any] = []

    def names(pictures: Any) -> list[str]:
        seen.append(pictures)
        return [CLASSES[int(picture.mean() > 127)] for picture in pictures]

    classifier = BlackBoxClassifier(names, classes=CLASSES)
    assert classifier(levels(0.1, 0.9)).tolist() == [0, 1]
    assert (seen[0].dtype, seen[0].shape) == (np.uint8, (2, 4, 4, 3))
    numbers = BlackBoxClassifier(lambda pictures: np.arange(len(pictures)))
    assert numbers(levels(0.1, 0.9)).tolist() == [0, 1]
    with pytest.raises(ModelOutputError, match="Give classes="):
        BlackBoxClassifier(names)(levels(0.1))
    with pytest.raises(ModelOutputError, match="3 labels for 2"):
        BlackBoxClassifier(lambda pictures: [0, 1, 0])(levels(0.1, 0.9))


def test_a_black_box_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f(pictures):\n    return ['dark' if p.mean() < 127 else 'bright' for p in pictures]\n"
    (tmp_path / "smoothcert_test_box.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    classifier = load("blackbox:smoothcert_test_box:f?classes=dark,bright")
    assert classifier(levels(0.1, 0.9)).tolist() == [0, 1]
    assert component(classifier).settings["code_sha256"]
