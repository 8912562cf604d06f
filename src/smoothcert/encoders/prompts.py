"""Which prompts belong to which class: one each, several each, or templates for a list of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smoothcert.errors import InvalidInput

Prompts = Sequence[str] | Mapping[str, str | Sequence[str]]
_GAP = "{}"


def by_class(prompts: Prompts, classes: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """The prompts of each class, in the order of the classes.

    Args:
        prompts: ``["a photo of a cat", ...]``, one a class; ``{"cat": [...], "dog": [...]}``; or, with
            ``classes``, templates with ``{}`` where the name goes, all of which every class gets.
        classes: their names; by default the prompts themselves, or the keys.

    Raises:
        InvalidInput: a prompt that is empty or no text, names twice, fewer than two classes, or numbers of
            prompts and classes that differ.
    """
    if isinstance(prompts, str) or not prompts:
        example = 'Write for instance ["a photo of a cat", "a photo of a dog"]'
        raise InvalidInput(f"prompts {prompts!r}", "a head needs prompts for two classes or more", example)
    asked = _of_mapping(prompts, classes) if isinstance(prompts, Mapping) else _of_list(prompts, classes)
    for name, own in asked.items():
        if not own or not all(isinstance(prompt, str) and prompt.strip() for prompt in own):
            why = "each must be a text with words in it"
            raise InvalidInput(
                f"prompts {list(own)!r} of class {name!r}", why, "Write what the pictures show"
            )
    if len(asked) < 2:
        found, why = f"prompts for {list(asked)}", "a head has two classes or more, each with its own name"
        raise InvalidInput(found, why, "Add prompts for another class")
    return asked


def _of_mapping(
    prompts: Mapping[str, str | Sequence[str]], classes: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    if classes is not None and set(classes) != set(prompts):
        found = f"classes {list(classes)} for prompts of {list(prompts)}"
        raise InvalidInput(found, "they are not the same names", "Give one of them, or equal names")
    return {
        name: (own,) if isinstance(own, str) else tuple(own)
        for name, own in ((name, prompts[name]) for name in classes or prompts)
    }


def _of_list(prompts: Sequence[str], classes: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    names = [str(name) for name in classes] if classes is not None else list(prompts)
    if len(set(names)) != len(names):
        raise InvalidInput(f"classes {names}", "each needs a name of its own", "Name them differently")
    templates = [isinstance(prompt, str) and _GAP in prompt for prompt in prompts]
    if classes is not None and all(templates):
        return {name: tuple(prompt.replace(_GAP, name) for prompt in prompts) for name in names}
    if any(templates):
        found, why = (
            f"prompts {list(prompts)}",
            "a template with {} needs names to put there, as do all others",
        )
        raise InvalidInput(found, why, "Give classes=[...], and {} in every prompt or in none")
    if len(names) != len(prompts):
        found = f"{len(prompts)} prompts for {len(names)} classes"
        instead = 'Give one each, or several by name: {"cat": ["a photo of a cat", "a cat"], ...}'
        raise InvalidInput(found, "each class needs its own", instead)
    return {name: (prompt,) for name, prompt in zip(names, prompts, strict=True)}
