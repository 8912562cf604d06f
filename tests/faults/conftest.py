"""The tally of the faults, as a line at the end of the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine import targets
from tests.faults.harness import Run, Whole


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Note ``("kind of fault", how many)``, or ``("damage", (lost, doubled, different))``."""
    return record_property


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """For each rule, the run to which nothing happened, on threads of one process."""
    found: dict[str, Whole] = {}

    def whole(rule: str) -> Whole:
        if rule not in found:
            directory = tmp_path_factory.mktemp("undisturbed") / rule
            targets.run(directory, rule=rule)
            found[rule] = Whole(Run.of(directory))
        return found[rule]

    return whole


def pytest_terminal_summary(terminalreporter: Any) -> None:
    faults: Counter[str] = Counter()
    damage = [0, 0, 0]
    checked = 0
    for found in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if found.when != "call" or "tests/faults" not in found.nodeid:
            continue
        for name, value in found.user_properties:
            if name == "damage":
                checked += 1
                damage = [a + b for a, b in zip(damage, value, strict=True)]
            else:
                faults[name] += value
    if faults:
        terminalreporter.section("faults injected")
        for name, count in sorted(faults.items()):
            terminalreporter.line(f"{count:6,}  {name}")
        lost, doubled, different = damage
        terminalreporter.line(
            f"{faults.total():6,}  in all; {checked} runs compared with undisturbed ones: "
            f"draws lost {lost}, doubled {doubled}, runs or draws different {different}"
        )
