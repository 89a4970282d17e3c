"""Settings that cannot be used are refused with what is allowed."""

from __future__ import annotations

import pytest

from envs.config import SessionConfig, resolve_config
from envs.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_cases", 1),
        ("n_cases", 64.0),
        ("n_cases", True),
        ("slots_per_hour", 0),
        ("budget_mode", "both"),
        ("budget_fraction", -0.1),
        ("budget_fraction", float("nan")),
        ("g_per_auc", 0.0),
        ("g_per_auc", None),
        ("urgent_fraction", 1.5),
        ("slack_min_h", 25.0),
        ("forecast_sd_1h", -0.1),
        ("forecast_sd_24h", 0.01),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        resolve_config(None, {field: value})


def test_unknown_settings_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'budget_fraction'"):
        resolve_config(None, {"budget_fracton": 0.2})


def test_single_fields_override_a_base() -> None:
    config = resolve_config(SessionConfig(n_cases=8), {"budget_mode": "cmdp"})
    assert (config.n_cases, config.budget_mode) == (8, "cmdp")
    assert not config.masks_unaffordable
    assert not config.charges_price


def test_a_price_is_not_asked_for_where_there_is_none() -> None:
    assert SessionConfig(budget_mode="mask", g_per_auc=0.0).g_per_auc == 0.0


def test_the_forecast_error_grows_with_the_lead() -> None:
    config = SessionConfig()
    sd = [config.forecast_sd(h) for h in (1.0, 3.0, 6.0, 12.0, 24.0)]
    assert sd[0] == pytest.approx(config.forecast_sd_1h)
    assert sd[-1] == pytest.approx(config.forecast_sd_24h)
    assert sd == sorted(sd)
    assert SessionConfig(forecast_sd_1h=0.0, forecast_sd_24h=0.0).forecast_sd(12.0) == 0.0


def test_the_horizon_holds_two_visits_a_case_and_the_longest_lead() -> None:
    # 128 visits at 4 an hour end in hour 31; the forecast from there reaches hour 55.
    assert SessionConfig().horizon_h() == 56
