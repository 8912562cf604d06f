"""Whether the head of a cluster still answers: Ray ends this whole process a minute after it is gone."""

from __future__ import annotations

import socket
import time

REACH = 5.0  # seconds a machine has to answer a knock
KNOCK = 2.0  # seconds between knocks
PATIENCE = 20.0  # seconds without an answer after which a head is gone


def host_and_port(address: str | None) -> tuple[str, int] | None:
    """``10.0.0.1:6379`` taken apart; ``None`` for anything else."""
    host, _, port = (address or "").rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() else None


def knock(place: tuple[str, int]) -> None:
    """``OSError`` where nothing listens."""
    socket.create_connection(place, timeout=REACH).close()


class Pulse:
    """The head at an address; one that cannot be told is taken to be there."""

    def __init__(self, address: str | None) -> None:
        self._place = host_and_port(address)
        self._asked = self._seen = time.monotonic()

    def lost(self) -> bool:
        """Whether nothing has answered there for long; may be asked as often as one likes."""
        if self._place is None or time.monotonic() - self._asked < KNOCK:
            return False
        try:
            knock(self._place)
            self._seen = time.monotonic()
        except OSError:
            pass
        self._asked = time.monotonic()
        return self._asked - self._seen > PATIENCE
