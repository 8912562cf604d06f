"""One endpoint asked patiently: attempts, waiting, limits. Knows bytes and nothing of images."""

from __future__ import annotations

import http.client
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from typing import IO, Any

from smoothcert.errors import EndpointError, InvalidInput

LONGEST_WAIT = 120.0  # seconds; an endpoint that asks for more is down for today
LARGEST_ANSWER = 4 << 20  # bytes
_FIRST_WAIT = 0.5
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like another: following one would send pictures and key elsewhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class _Failed(Exception):
    """An attempt that may succeed when made again, after so many seconds at least."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class Endpoint:
    """``post`` gives the answer of one successful request, whatever it takes within the limits.

    Args:
        url: where to. shown: the address without secrets, for messages.
        retries: further attempts after one that failed in passing.
        timeout: seconds for one attempt, its answer read to the end.
        rate: requests in a second, over all threads; ``None`` for no limit.
        concurrency: requests under way, over all threads.
        headers: made anew for each attempt, such as a key that is stored nowhere.
    """

    _next: float

    def __init__(
        self,
        url: str,
        shown: str,
        *,
        retries: int,
        timeout: float,
        rate: float | None,
        concurrency: int,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        if retries < 0 or not 0 < timeout < 1e5 or concurrency < 1 or (rate is not None and not rate > 0):
            found = f"retries={retries}, timeout={timeout}, rate={rate}, concurrency={concurrency}"
            raise InvalidInput(
                found, "no request could be made so", "Write for instance retries=5, timeout=30"
            )
        self.url, self.shown, self.retries, self.timeout = url, shown, retries, timeout
        self.rate, self.concurrency, self.headers = rate, concurrency, headers
        self._limits()

    def post(self, body: bytes, content_type: str) -> bytes:
        """The bytes of the answer.

        Raises:
            EndpointError: every attempt failed, or the endpoint refused in a way that does not pass.
        """
        for attempt in range(self.retries + 1):
            try:
                with self._places:
                    self._wait_for_turn()
                    return self._attempt(body, content_type)
            except _Failed as failed:  # noqa: PERF203 - a request costs far more
                if attempt == self.retries or failed.wait > LONGEST_WAIT:
                    raise self._down(str(failed), attempt + 1) from failed
                backoff = _FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
                time.sleep(max(failed.wait, min(backoff, LONGEST_WAIT)))
        raise AssertionError("unreachable")

    def _attempt(self, body: bytes, content_type: str) -> bytes:
        headers = {"Content-Type": content_type, "User-Agent": "smoothcert", **self.headers()}
        request = urllib.request.Request(self.url, data=body, headers=headers, method="POST")  # noqa: S310
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            raise self._status(error) from error
        except (OSError, http.client.HTTPException) as error:  # no connection, or none in time
            raise _Failed(str(getattr(error, "reason", None) or error) or type(error).__name__) from error

    def _read(self, answer: Any) -> bytes:
        """The whole answer, within its time and size."""
        end, parts, size = time.monotonic() + self.timeout, list[bytes](), 0
        while block := answer.read1(1 << 16):
            parts.append(block)
            size += len(block)
            if size > LARGEST_ANSWER:
                why = f"its answer is longer than {LARGEST_ANSWER} bytes"
                raise EndpointError(f"endpoint {self.shown}", why, "Check that it is the right address")
            if time.monotonic() > end:
                raise _Failed(f"no complete answer in {self.timeout:g} s")
        return b"".join(parts)

    def _status(self, error: urllib.error.HTTPError) -> Exception:
        """A status that passes, to be tried again, or one that does not."""
        error.close()
        if error.code in _PASSING:
            return _Failed(f"status {error.code}", _retry_after(error.headers))
        if 300 <= error.code < 400:
            why = f"it redirects elsewhere (status {error.code}), which would send pictures and keys there"
            return EndpointError(f"endpoint {self.shown}", why, "Give the final address")
        why = f"it refused the request (status {error.code} {error.reason})"
        return EndpointError(f"endpoint {self.shown}", why, "Check the address, the key and the format")

    def _down(self, why: str, attempts: int) -> EndpointError:
        reason = f"it does not answer ({why}; {attempts} attempt{'s' * (attempts > 1)})"
        instead = "Run the same command again when it is back: everything finished is kept"
        return EndpointError(f"endpoint {self.shown}", reason, instead)

    def _wait_for_turn(self) -> None:
        """Requests start ``1 / rate`` seconds apart, whichever thread they come from."""
        if self.rate is None:
            return
        with self._turn:
            start = max(self._next, time.monotonic())
            self._next = start + 1 / self.rate
        time.sleep(max(0.0, start - time.monotonic()))

    def _limits(self) -> None:
        self._places = threading.BoundedSemaphore(self.concurrency)
        self._turn = threading.Lock()
        self._next = 0.0
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._limits()


def _retry_after(headers: Message) -> float:
    """Seconds to wait: as a number, or until a date; 0 where nothing is said or it cannot be read."""
    from email.utils import parsedate_to_datetime

    said = headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
