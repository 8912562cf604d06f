"""``smoothcert models``: what can be named, and what a model is before anything is certified with it."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.models import see_working_directory
from smoothcert.errors import InvalidInput, SmoothcertError

app = typer.Typer(
    help="Find and inspect classifiers, encoders and denoisers.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_EXTRAS = {"transformers": "hf", "timm": "timm", "torchvision": "torchvision", "onnx": "onnx"}
_LIBRARIES = {"onnx": "onnxruntime"}
_SHOWN_ABOVE = ("kind", "classes", "class_count")


@app.command("inspect")
def inspect(
    name: Annotated[str | None, typer.Argument(help="Name of a classifier.", show_default=False)] = None,
    denoiser: Annotated[
        str | None, typer.Option("--denoiser", help="Name of a denoiser instead.", show_default=False)
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Name of an encoder instead.", show_default=False)
    ] = None,
    image: Annotated[str, typer.Option("--image", help="Show what an image of this shape becomes.")] = (
        "3x32x32"
    ),
    as_json: options.Json = False,
) -> None:
    """Show what a model is: kind, parameters, hash, preprocessing, classes.

    [bold]Examples[/]

      smoothcert models inspect digits --image 1x8x8

      smoothcert models inspect transformers:google/vit-base-patch16-224

      smoothcert models inspect --denoiser digits

      smoothcert models inspect --encoder transformers:openai/clip-vit-base-patch32
    """
    named = [one for one in (name, denoiser, encoder) if one is not None]
    if len(named) != 1:
        given = " and ".join(named) or "nothing to inspect"
        instead = "Write a name, or --denoiser NAME, or --encoder NAME"
        raise InvalidInput(given, "one model is inspected at a time", instead)
    shape = _shape(image)
    if name is not None:
        found = _classifier(name, shape)
    else:
        found = _denoiser(str(denoiser)) if encoder is None else _encoder(encoder, shape)
    if as_json:
        print(json.dumps(found))
        return
    for key, value in _lines(found):
        print(f"{key:<30}{value}")


@app.command("list")
def listed(as_json: options.Json = False) -> None:
    """List the forms that names of classifiers, encoders and denoisers take, and what each still needs."""
    from smoothcert import classifiers, denoisers, encoders

    found = [_form("classifier", name) for name in classifiers.NAMES]
    found += [_form("encoder", name) for name in encoders.NAMES]
    found += [_form("denoiser", name) for name in denoisers.NAMES]
    if as_json:
        print(json.dumps(found))
        return
    for one in found:
        needs = "" if one["installed"] else f'  (pip install "smoothcert[{one["extra"]}]")'
        print(f"{one['role']:<12}{one['name']}{needs}")


def _form(role: str, name: str) -> dict[str, Any]:
    library = name.partition(":")[0]
    extra = _EXTRAS.get(library)
    needed = _LIBRARIES.get(library, library)
    installed = extra is None or importlib.util.find_spec(needed) is not None
    return {"role": role, "name": name, "extra": extra, "installed": installed}


def _classifier(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    from smoothcert import classifiers

    see_working_directory()
    model: Any = classifiers.load(name)
    names = getattr(model, "classes", None)
    return {
        "role": "classifier",
        **_weights(model),
        "class_count": len(names) if names else getattr(model, "class_count", None),
        "classes": list(names) if names else None,
        "image": list(shape),
        **_becomes(model, shape),
    }


def _encoder(name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    from smoothcert import encoders

    see_working_directory()
    model: Any = encoders.load(name)
    return {
        "role": "encoder",
        **_weights(model),
        "features": _features(model, shape),
        "image": list(shape),
        **_becomes(model, shape),
    }


def _features(model: Any, shape: tuple[int, ...]) -> list[int] | None:
    """The shape of an image's feature, by asking for one; ``None`` where the encoder takes no such image."""
    import torch

    try:
        with torch.no_grad():
            return list(model(torch.zeros(2, *shape)).shape[1:])
    except (SmoothcertError, RuntimeError, ValueError):
        return None


def _becomes(model: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The shape that the network gets for an image, or why it gets none; nothing of a model without one."""
    preprocessing = getattr(model, "preprocessing", None)
    try:
        if preprocessing is not None:
            return {"becomes": list(preprocessing.result(shape)), "refused": None}
        if hasattr(model, "check"):
            model.check(shape)
    except SmoothcertError as error:
        return {"becomes": None, "refused": str(error)}
    return {"becomes": None, "refused": None}


def _denoiser(name: str) -> dict[str, Any]:
    from smoothcert import denoisers

    see_working_directory()
    return {"role": "denoiser", **_weights(denoisers.load(name))}


def _weights(model: Any) -> dict[str, Any]:
    """What a run's specification will say of it, and its size."""
    from smoothcert.engine.specify import component
    from smoothcert.smoothing.network import modules_of

    modules, stated = modules_of(model), component(model)
    parameters = sum(weight.numel() for module in modules for weight in module.parameters())
    return {
        "source": stated.source,
        "kind": stated.settings.get("kind"),
        "parameters": parameters if modules else None,
        "sha256": stated.sha256,
        "settings": {key: value for key, value in stated.settings.items() if key not in _SHOWN_ABOVE},
    }


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """For people: nested settings one a line, long lists shortened."""
    lines: list[tuple[str, str]] = []
    for key, value in found.items():
        if value is None and key in ("refused", "features"):
            continue
        if key == "settings":
            lines += _nested(value)
        elif key in ("image", "becomes", "features"):
            lines.append((key, "x".join(map(str, value)) if value else "as it is"))
        elif key == "parameters":
            lines.append((key, f"{value:,}" if value is not None else "not known here"))
        else:
            lines.append((key, _text(value)))
    refused = found.get("refused")
    return [line for line in lines if not (refused and line[0] == "becomes")]


def _nested(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, inner in value.items():
        whole = f"{prefix}{key}"
        lines += _nested(inner, f"{key}.") if isinstance(inner, dict) else [(whole, _text(inner))]
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        shown = ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value[:8])
        return shown if len(value) <= 8 else f"{shown}, ... ({len(value)} in all)"
    return str(value)


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){2}", text):
        raise InvalidInput(f"--image {text}", "is no shape CxHxW", "Write for instance --image 3x32x32")
    return tuple(int(part) for part in text.split("x"))
