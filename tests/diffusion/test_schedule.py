"""Schedules against published indices, the paper's closed form, and diffusers' own tables."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from smoothcert.diffusion.closed_form import CosineSchedule, EdmSchedule
from smoothcert.diffusion.schedule import Schedule, TableSchedule, beta_schedule
from smoothcert.errors import InvalidInput, UnknownName

LIBRARY: Any = importlib.import_module("diffusers")  # untyped

NAMES = ("linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2")

EVERY: tuple[Schedule, ...] = (
    *(beta_schedule(name, 1000) for name in NAMES),
    beta_schedule("squaredcos_cap_v2", 4000),
    CosineSchedule(4000),
    CosineSchedule(50),
    EdmSchedule(),
    TableSchedule.from_alpha_bar([0.999, 0.7, 0.4, 0.05, 0.001]),
)


def ids(schedule: Schedule) -> str:
    return f"{schedule.name}-{schedule.timesteps}"


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(4000), beta_schedule("squaredcos_cap_v2", 4000)], ids=["ideal", "capped"]
)
@pytest.mark.parametrize(("sigma", "index"), [(0.25, 1158), (0.5, 1984), (1.0, 2809)])
def test_published_indices_of_the_cosine_schedule(schedule: Schedule, sigma: float, index: int) -> None:
    assert schedule.first_index_at_least(2 * sigma) == index


@pytest.mark.parametrize(("sigma", "index"), [(0.25, 145), (0.5, 259), (1.0, 396)])
def test_published_indices_of_the_linear_schedule(sigma: float, index: int) -> None:
    assert beta_schedule("linear", 1000).first_index_at_least(2 * sigma) == index


@pytest.mark.parametrize(("sigma", "steps"), [(0.25, 1158.513), (0.5, 1984.199), (1.0, 2809.985)])
def test_continuous_time_is_equation_5_less_the_first_step(sigma: float, steps: float) -> None:
    index = CosineSchedule(4000).time_of(2 * sigma)
    s, noise = 0.008, 2 * sigma
    cosecant = math.sqrt(1 + noise**2) / math.sin(math.pi / (2 + 2 * s))
    printed = 4000 * (1 - 2 * (1 + s) * math.asin(1 / cosecant) / math.pi)
    assert index + 1 == pytest.approx(printed, rel=1e-12)
    assert index + 1 == pytest.approx(steps, abs=5e-4)


@pytest.mark.parametrize("schedule", EVERY, ids=ids)
def test_time_of_inverts_sigma_at(schedule: Schedule) -> None:
    ends = schedule.sigma_min, schedule.sigma_max
    sigmas = [*ends, *np.geomspace(*ends, 3001)[1:-1].tolist()]
    worst = max(abs(schedule.sigma_at(schedule.time_of(sigma)) / sigma - 1) for sigma in sigmas)
    assert worst <= 1e-12


@pytest.mark.parametrize("schedule", EVERY, ids=ids)
def test_noise_and_signal_agree_and_noise_rises(schedule: Schedule) -> None:
    times = np.linspace(*schedule.time_range, 1001)
    sigma, alpha_bar = schedule.sigma_at(times), schedule.alpha_bar(times)
    assert (np.diff(sigma) > 0).all()
    np.testing.assert_allclose(np.sqrt((1 - alpha_bar) / alpha_bar), sigma, rtol=1e-8)
    assert schedule.alpha_bar(float(times[7])) == alpha_bar[7]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("timesteps", [10, 1000])
def test_tables_are_those_of_diffusers(name: str, timesteps: int) -> None:
    theirs = LIBRARY.DDPMScheduler(num_train_timesteps=timesteps, beta_schedule=name)
    ours = Schedule.from_diffusers(dict(theirs.config))
    alpha_bar = ours.alpha_bar(np.arange(timesteps, dtype=np.float64))
    # diffusers multiplies up to 1000 single-precision factors: 1000 * 6e-8.
    np.testing.assert_allclose(alpha_bar, theirs.alphas_cumprod.double().numpy(), rtol=6e-5)


def test_betas_trained_elsewhere_are_read() -> None:
    betas = [0.1, 0.2, 0.5]
    schedule = Schedule.from_diffusers({"trained_betas": betas, "beta_schedule": "linear"})
    np.testing.assert_allclose(schedule.alpha_bar(np.arange(3.0)), [0.9, 0.72, 0.36], rtol=1e-14)


@pytest.mark.parametrize("schedule", [s for s in EVERY if isinstance(s, TableSchedule)], ids=ids)
def test_way_to_diffusers_and_back(schedule: Schedule) -> None:
    again = Schedule.from_diffusers(json.loads(json.dumps(schedule.to_diffusers())))
    np.testing.assert_allclose(again.levels, schedule.levels, rtol=1e-12)


@pytest.mark.parametrize("schedule", [CosineSchedule(100), EdmSchedule()], ids=ids)
def test_what_diffusers_cannot_express_is_refused(schedule: Schedule) -> None:
    with pytest.raises(InvalidInput, match="finite table"):
        schedule.to_diffusers()


def test_cosine_and_its_capped_table_agree_until_the_cap() -> None:
    ideal, capped = CosineSchedule(1000).levels, beta_schedule("squaredcos_cap_v2", 1000).levels
    np.testing.assert_allclose(capped[:-1], ideal[:-1], rtol=1e-11)
    assert math.isinf(ideal[-1])
    assert np.isfinite(capped[-1])


def test_table_is_log_linear_between_indices() -> None:
    schedule = beta_schedule("linear", 1000)
    low, high = schedule.levels[144:146]
    assert schedule.sigma_at(144.5) == pytest.approx(math.sqrt(low * high), rel=1e-13)


def test_edm_conditions_on_a_quarter_of_log_sigma_and_has_the_published_levels() -> None:
    schedule = EdmSchedule(18, least=0.002, most=80, rho=7)
    assert schedule.time_of(0.5) == 0.5
    assert schedule.condition(0.5) == pytest.approx(math.log(0.5) / 4, rel=1e-15)
    assert schedule.time_conditioned_on(schedule.condition(0.5)) == pytest.approx(0.5, rel=1e-14)
    i = 5  # counted from the top, as in the paper's eq. (5)
    fifth = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert schedule.levels[17 - i] == pytest.approx(fifth, rel=1e-12)
    assert (schedule.levels[0], schedule.levels[-1]) == (0.002, 80.0)


@pytest.mark.parametrize("schedule", EVERY, ids=ids)
def test_sigma_out_of_range_names_the_range_in_both_units(schedule: Schedule) -> None:
    for sigma in (schedule.sigma_min * 0.999, schedule.sigma_max * 1.001, math.nan, -1.0, 0.0, math.inf):
        with pytest.raises(InvalidInput) as refusal:
            schedule.time_of(sigma)
        message = str(refusal.value)
        for end in (schedule.sigma_min, schedule.sigma_max):
            assert f"{end:g}" in message
            assert f"{end / 2:g}" in message


@pytest.mark.parametrize("schedule", EVERY, ids=ids)
def test_first_index_is_the_first(schedule: Schedule) -> None:
    levels = schedule.levels
    for index in range(1, schedule.timesteps, max(1, schedule.timesteps // 20)):
        if np.isfinite(levels[index]):
            assert schedule.first_index_at_least(float(levels[index])) == index
            assert schedule.first_index_at_least(float(levels[index - 1]) * 1.0000001) == index
    assert schedule.first_index_at_least(schedule.sigma_min / 10) == 0
    for sigma in (0.0, math.nan, -1.0):
        with pytest.raises(InvalidInput):
            schedule.first_index_at_least(sigma)


@pytest.mark.parametrize("schedule", EVERY, ids=ids)
@pytest.mark.parametrize("t", [-0.001, 1e9, math.nan])
def test_times_outside_the_model_are_refused(schedule: Schedule, t: float) -> None:
    with pytest.raises(InvalidInput, match="has times"):
        schedule.sigma_at(t)


@pytest.mark.parametrize(
    "table",
    [[0.9], [], [[0.9, 0.5]], [0.5, 0.9], [0.9, 0.9], [0.9, math.nan], [1.0, 0.5], [0.5, 0.0], [1.2, 0.5]],
    ids=str,
)
def test_tables_that_are_no_schedule_are_refused(table: list[float]) -> None:
    with pytest.raises(InvalidInput):
        TableSchedule.from_alpha_bar(table)


def test_other_input_that_is_no_schedule_is_refused() -> None:
    for betas in ([0.1, 1.0], [0.1, 0.0], [0.1, -0.1], [0.1]):
        with pytest.raises(InvalidInput):
            TableSchedule.from_betas(betas)
    for bad in ((1, 1e-4, 0.02), (1000, 0.0, 0.02), (1000, 1e-4, 1.0), (1000, math.nan, 0.02)):
        with pytest.raises(InvalidInput):
            beta_schedule("linear", bad[0], start=bad[1], end=bad[2])
    with pytest.raises(InvalidInput):
        CosineSchedule(2)
    with pytest.raises(InvalidInput):
        EdmSchedule(18, least=2.0, most=1.0)


def test_unknown_and_foreign_configurations_are_refused() -> None:
    with pytest.raises(UnknownName, match="scaled_linear"):
        Schedule.from_diffusers({"beta_schedule": "scaled-linear"})
    with pytest.raises(InvalidInput, match="infinite noise"):
        Schedule.from_diffusers({"rescale_betas_zero_snr": True})
    with pytest.raises(InvalidInput, match="EDMEulerScheduler"):
        Schedule.from_diffusers({"_class_name": "EDMEulerScheduler", "sigma_min": 0.002})


def test_descriptions_are_plain_and_tell_schedules_apart() -> None:
    described = [json.dumps(schedule.describe(), sort_keys=True) for schedule in EVERY]
    assert len(set(described)) == len(EVERY)
    assert beta_schedule("linear") == beta_schedule("linear")
    assert hash(beta_schedule("linear")) == hash(beta_schedule("linear"))
    assert beta_schedule("linear") != beta_schedule("linear", end=0.03)
    assert TableSchedule.from_alpha_bar([0.9, 0.5]) != TableSchedule.from_alpha_bar([0.9, 0.4])


def test_a_table_cannot_be_changed_from_outside() -> None:
    source = np.array([0.0, 1.0])
    schedule = TableSchedule(source)
    source[0] = 0.5
    assert schedule.sigma_min == 1.0
    with pytest.raises(ValueError, match="read-only"):
        schedule.log_sigma[0] = 0.5


def test_schedules_import_without_torch() -> None:
    program = "import sys, smoothcert.diffusion.closed_form; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
