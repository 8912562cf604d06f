"""A classifier behind an HTTP endpoint, of which nothing is known but its answers.

The default protocol: ``POST`` with the JSON body ``{"images": [PNG in base64, ...]}``, answered by
``{"labels": [a name or number for each image]}``. Other protocols are two functions, ``encode`` and
``decode``. Each draw is asked about until it has one answer; a failed request is never a vote. What is kept
of the address holds no secret.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from torch import Tensor

from smoothcert.classifiers.blackbox import Pictures, numbered, pictures
from smoothcert.classifiers.requests import Endpoint
from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.networks import options as opt

PREFIXES = ("http://", "https://")
OPTIONS = ("classes", "key", "header", "rate", "retries", "timeout", "images", "concurrency")


@dataclass(frozen=True)
class Message:
    """A request's body: its bytes, and what they are."""

    body: bytes
    content_type: str = "application/json"


def json_images(images: Pictures) -> Message:
    """``{"images": [PNG in base64, ...]}``."""
    coded = [base64.b64encode(png(image)).decode() for image in images]
    return Message(json.dumps({"images": coded}).encode())


def one_png(images: Pictures) -> Message:
    """The bare PNG of one picture: for endpoints that take one at a time (``images=1``)."""
    return Message(png(images[0]), "image/png")


def json_labels(body: bytes) -> list[Any]:
    """``{"labels": [...]}``, or ``{"label": ...}`` for one image."""
    answer = json.loads(body)
    return [answer["label"]] if "label" in answer else list(answer["labels"])


def png(image: Pictures) -> bytes:
    """A picture ``(H, W, C)`` of one, three or four channels as the bytes of a PNG file."""
    from PIL import Image

    if image.shape[2] not in (1, 3, 4):
        found = f"a picture of {image.shape[2]} channels"
        raise InvalidInput(found, "a PNG has 1, 3 or 4", "Write encode= for another format")
    file = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG", compress_level=1)
    return file.getvalue()


class HttpClassifier:
    """Images ``(B, C, H, W)`` in [0, 1] -> labels ``(B,)``, from an endpoint on the net.

    Each image is clipped, rounded to 8 bits and sent. Failures that may pass (no connection, no answer in
    time, status 429 or 5xx) are tried again, waiting longer each time and as long as ``Retry-After`` says.

    Args:
        url: where to send pictures.
        classes: names of the labels in their order; needed where the endpoint answers with names.
        encode: pictures ``(k, H, W, C)``, 8-bit -> a ``Message``. decode: an answer's bytes -> k labels.
        images: pictures in one request, at most.
        retries: further attempts after a failure. timeout: seconds for one attempt.
        rate: requests in a second, at most, over all threads. concurrency: requests under way, at most.
        key: an environment variable that holds a secret, sent as ``Authorization: Bearer SECRET``, or alone
            under another ``header``; it is read when needed and stored nowhere.
        header: the name of that header.
    """

    weights_sha256 = None  # nobody here can read them

    def __init__(
        self,
        url: str,
        *,
        classes: Sequence[str] | None = None,
        encode: Callable[[Pictures], Message] = json_images,
        decode: Callable[[bytes], Sequence[Any]] = json_labels,
        images: int = 16,
        retries: int = 5,
        timeout: float = 30.0,
        rate: float | None = None,
        concurrency: int = 4,
        key: str | None = None,
        header: str = "Authorization",
    ) -> None:
        _check_url(url)
        if images < 1:
            raise InvalidInput(f"images={images}", "a request holds at least one", "Write images=1")
        self.encode, self.decode, self.images = encode, decode, images
        self.classes = tuple(classes) if classes else None
        self.source = without_secrets(url)
        secret = Secret(key, header) if key else None
        self.endpoint = Endpoint(
            url,
            self.source,
            retries=retries,
            timeout=timeout,
            rate=rate,
            concurrency=concurrency,
            headers=secret.headers if secret else dict,
        )

    def __call__(self, images: Tensor, /) -> Tensor:
        """Labels ``(B,)``, int64, on the device of the images.

        Raises:
            EndpointError: the endpoint stays down or refuses.
            ModelOutputError: an answer that cannot be read, or a label that is not among the classes.
        """
        whole = pictures(images)
        parts = [whole[k : k + self.images] for k in range(0, len(whole), self.images)]
        with ThreadPoolExecutor(min(len(parts), self.endpoint.concurrency)) as pool:
            answers = list(pool.map(self._ask, parts))
        labels = [label for answer in answers for label in answer]
        return numbered(labels, self.classes, len(images), self.source).to(images.device)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification; the address without secrets is its ``source``."""
        protocol = {"encode": self.encode.__qualname__, "decode": self.decode.__qualname__}
        return {"kind": "http", **protocol, "classes": None if self.classes is None else list(self.classes)}

    def _ask(self, part: Pictures) -> list[Any]:
        """The labels of one request, as many as it has pictures."""
        message = self.encode(part)
        body = self.endpoint.post(message.body, message.content_type)
        try:
            labels = list(self.decode(body))
        except Exception as error:  # whatever the decoder trips over
            found = f"endpoint {self.source} answered {body[:60]!r}"
            why = f"that cannot be read ({type(error).__name__}: {error})"
            instead = 'It must answer {"labels": [...]}, or write decode= for its format'
            raise ModelOutputError(found, why, instead) from error
        if len(labels) != len(part):
            found = f"endpoint {self.source} returned {len(labels)} labels for {len(part)} images"
            why = "each image needs one label, in the order of the images"
            raise ModelOutputError(found, why, "Correct the endpoint, or send one image at a time (images=1)")
        return labels


@dataclass(frozen=True)
class Secret:
    """A header whose value lies in the environment."""

    variable: str
    header: str

    def headers(self) -> dict[str, str]:
        """The header with its value, read now.

        Raises:
            InvalidInput: no such environment variable.
        """
        value = os.environ.get(self.variable)
        if not value:
            why = "there is no such environment variable, or it is empty"
            raise InvalidInput(f"key={self.variable}", why, f"Set it: export {self.variable}=...")
        return {self.header: f"Bearer {value}" if self.header == "Authorization" else value}


def load(name: str) -> HttpClassifier:
    """Read ``https://HOST/PATH#options``: after ``#``, which is never sent, stand options of ours.

    Raises:
        InvalidInput: an address with a secret in it, which a run's files would keep, or a bad option.
    """
    url, _, text = name.partition("#")
    options = opt.parse(text, OPTIONS, f"classifier {without_secrets(url)!r}")
    split = urlsplit(url)
    if split.username or split.password or _secret_keys(split.query):
        why = "its address holds a secret, which would be stored with the run"
        instead = "Put it into an environment variable, and write ...#key=NAME_OF_THE_VARIABLE"
        raise InvalidInput(f"classifier {without_secrets(url)!r}", why, instead)
    numbers = {key: _number(key, options[key]) for key in ("rate", "timeout") if key in options}
    counts = {
        key: int(_number(key, options[key])) for key in ("retries", "images", "concurrency") if key in options
    }
    words = {key: unquote(options[key]) for key in ("key", "header") if key in options}
    return HttpClassifier(url, classes=opt.classes(options), **numbers, **counts, **words)  # type: ignore[arg-type]


def without_secrets(url: str) -> str:
    """An address without user, password and the values of its query: what may be stored and shown."""
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    query = "&".join(f"{key}=..." for key, _ in parse_qsl(split.query, keep_blank_values=True))
    return urlunsplit((split.scheme, host, split.path, query, ""))


def _check_url(url: str) -> None:
    split = urlsplit(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise InvalidInput(
            f"endpoint {without_secrets(url)!r}", "it is no address", "Write https://HOST/PATH"
        )


def _secret_keys(query: str) -> list[str]:
    words = ("key", "token", "secret", "sig", "pass", "auth", "credential")
    return [key for key, _ in parse_qsl(query) if any(word in key.lower() for word in words)]


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InvalidInput(f"{key}={text}", "is no number", f"Write for instance {key}=5") from error
