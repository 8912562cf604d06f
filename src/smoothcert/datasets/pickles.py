"""Arrays and lists out of a pickle, without running anything that is in it.

The archives of CIFAR are pickles of Python 2. Here the three names that they contain stand for inert records
of what the file says about its arrays; every other name is refused before anything is imported or called.
numpy is given the bytes only after type and size have been checked.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.datasets.places import damaged
from smoothcert.errors import DataError


def read_pickle(content: bytes, file: str) -> dict[str, Any]:
    """The dictionary in a pickle, its byte strings as text (Latin-1) and its arrays as uint8 numpy arrays.

    Args:
        content: the bytes of the file.
        file: how errors name it.

    Raises:
        DataError: damaged, no dictionary, arrays of another type than uint8, or anything that would run code.
    """
    try:
        found = _Reader(io.BytesIO(content), encoding="latin1").load()
    except _Refused as error:
        why = f"it is a pickle that asks for {error}, which could run code; nothing in it was executed"
        raise DataError(f"file {file!r}", why, "Fetch the original archive again") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise damaged(file, f"it cannot be read ({type(error).__name__}: {error})") from error
    if not isinstance(found, dict):
        raise damaged(file, "it does not hold a dictionary")
    return {str(key): _plain(value, file) for key, value in found.items()}


class _Refused(Exception):
    """A name that no data needs."""


class _Type:
    """Stands for ``numpy.dtype``: remembers the code, such as ``u1``."""

    def __init__(self, code: Any = None, *_rest: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        """The byte order and the like, which mean nothing for single bytes."""


class _Array:
    """Stands for the array that ``numpy._reconstruct`` makes: remembers what the file says about it."""

    def __init__(self, *_arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    _STAND_INS = {  # noqa: RUF012 - never changed
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,  # archives saved again by numpy 2
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._STAND_INS:
            raise _Refused(f"{module}.{name}")
        return self._STAND_INS[module, name]


def _plain(value: Any, file: str) -> Any:
    return _array(value.state, file) if isinstance(value, _Array) else value


def _array(state: Any, file: str) -> npt.NDArray[np.uint8]:
    """The array of a state ``(version, shape, dtype, column-major?, bytes)``."""
    try:
        _, shape, kind, by_columns, content = state
        raw = content.encode("latin1") if isinstance(content, str) else bytes(content)
        if kind.code not in ("u1", "|u1"):
            raise ValueError(f"its array has type {kind.code!r}, not uint8")
        flat = np.frombuffer(raw, dtype=np.uint8)
        return flat.reshape(tuple(shape), order="F" if by_columns else "C")
    except (TypeError, ValueError, AttributeError) as error:
        raise damaged(file, f"an array in it does not add up ({error})") from error
