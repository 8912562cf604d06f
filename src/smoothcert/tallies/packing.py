"""Integers as text: little-endian bytes, seven bits each, in base64. The same numbers are the same text."""

from __future__ import annotations

import base64
import binascii

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput

Integers = npt.NDArray[np.int64]
_MOST_BYTES = 10  # of a 64-bit number at seven bits a byte


def packed(values: Integers) -> str:
    """Signed 64-bit numbers as text; small ones take one byte."""
    left = ((values << 1) ^ (values >> 63)).astype(np.uint64)  # zigzag: the sign becomes the lowest bit
    columns, last = [], np.zeros(len(left), dtype=np.int64)
    for place in range(_MOST_BYTES):
        columns.append((left & np.uint64(127)).astype(np.uint8))
        left = left >> np.uint64(7)
        last[left > 0] = place + 1
        if not left.any():
            break
    table = np.stack(columns, axis=1) if len(values) else np.zeros((0, 1), dtype=np.uint8)
    places = np.arange(table.shape[1])
    table |= np.where(places < last[:, None], 128, 0).astype(np.uint8)
    return base64.b64encode(table[places <= last[:, None]].tobytes()).decode()


def unpacked(text: str) -> Integers:
    """What ``packed`` wrote; ``InvalidInput`` for anything else."""
    try:
        raw = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)
    except (binascii.Error, ValueError) as error:
        raise _not_packed(text) from error
    ends = np.flatnonzero(raw < 128)
    if not len(raw):
        return np.zeros(0, dtype=np.int64)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise _not_packed(text)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_BYTES:
        raise _not_packed(text)
    values = np.zeros(len(ends), dtype=np.uint64)
    for place in range(int(lengths.max())):
        there = lengths > place
        digit = (raw[starts[there] + place] & 127).astype(np.uint64)
        values[there] |= digit << np.uint64(7 * place)
    return (values >> np.uint64(1)).astype(np.int64) ^ -(values & np.uint64(1)).astype(np.int64)


def _not_packed(text: str) -> InvalidInput:
    return InvalidInput(
        f"numbers {text[:40]!r}", "are not in packed form", "Restore the run file from a copy"
    )
