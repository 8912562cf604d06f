"""The head of a cluster: there, gone for a moment, gone for good."""

from __future__ import annotations

import socket
import time

import pytest

from smoothcert.engine import cluster, pulse
from smoothcert.engine.pulse import Pulse, host_and_port
from smoothcert.errors import InvalidInput


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "KNOCK", 0.0)
    monkeypatch.setattr(pulse, "PATIENCE", 0.3)


def listening(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def test_a_head_is_lost_when_it_has_not_answered_for_long() -> None:
    server = listening()
    port = server.getsockname()[1]
    one = Pulse(f"127.0.0.1:{port}")
    time.sleep(0.4)
    assert not one.lost(), "it answers"
    server.close()
    assert not one.lost(), "a moment is not long"
    server = listening(port)
    time.sleep(0.4)
    assert not one.lost(), "it came back"
    server.close()
    time.sleep(0.4)
    assert one.lost()


def test_knocks_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "KNOCK", 60.0)
    monkeypatch.setattr(pulse, "knock", lambda _: pytest.fail("too early"))
    assert not Pulse("127.0.0.1:1").lost()


@pytest.mark.parametrize("address", [None, "", "auto", "local", "head", ":6379"])
def test_an_address_that_cannot_be_told_is_taken_to_be_there(address: str | None) -> None:
    assert host_and_port(address) is None
    assert not Pulse(address).lost()


def test_addresses() -> None:
    assert host_and_port("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert host_and_port("[::1]:6379") == ("::1", 6379)


def test_a_cluster_that_is_gone_is_refused_at_once() -> None:
    """Ray itself would try for minutes, and print what it tries."""
    pytest.importorskip("ray")
    server = listening()
    address = f"127.0.0.1:{server.getsockname()[1]}"
    server.close()
    started = time.monotonic()
    with pytest.raises(InvalidInput, match=r"cannot be used .*refused.*ray start --head"):
        cluster.connect(address, 1)
    assert time.monotonic() - started < 20
