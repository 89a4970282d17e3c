"""The layout: names, scaling and the way back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from distill.transfers import all_transfers
from envs.errors import LayoutError
from envs.observation import GROUPS, ObservationLayout

MODALITIES = ("clinical", "genomics", "pathology")


@pytest.fixture
def layout() -> ObservationLayout:
    return ObservationLayout(MODALITIES, all_transfers(MODALITIES))


def values_of(layout: ObservationLayout, seed: int, batch: int = 3) -> dict[str, np.ndarray]:
    """Physical values inside every field's bounds."""
    rng = np.random.default_rng(seed)
    values = {}
    for field in layout.fields:
        share = rng.random(batch) * 0.9
        scaled = field.low + share * (min(field.high, 4.0) - field.low)
        values[field.name] = (scaled**2 if field.kind == "sqrt" else scaled) * field.scale
    return values


def test_the_vector_has_the_named_fields_once(layout: ObservationLayout) -> None:
    t, m = len(layout.transfers), len(MODALITIES)
    assert layout.size == 4 + 3 * m + t + 3 + 7 + 9 + 5 * t
    assert len(set(layout.names)) == layout.size == len(layout.units)
    assert np.isfinite(layout.low).all()
    assert np.isfinite(layout.high).all()
    assert (layout.low < layout.high).all()
    assert not [name for name in layout.names if "label" in name or "case_id" in name]


def test_values_survive_scaling_and_back(layout: ObservationLayout) -> None:
    values = values_of(layout, seed=0)
    observation = layout.encode(values)
    assert observation.dtype == np.float32
    for name, value in values.items():
        np.testing.assert_allclose(layout.physical(observation, name), value, rtol=2e-6, atol=1e-6)
    explained = layout.explain(observation[1])
    assert list(explained) == list(layout.names)
    energy, unit = explained["energy_genomics->pathology"]
    assert unit == "kWh"
    assert energy == pytest.approx(values["energy_genomics->pathology"][1], rel=1e-5)


def test_groups_may_be_given_and_read_whole(layout: ObservationLayout) -> None:
    values = values_of(layout, seed=1)
    grouped: dict[str, np.ndarray] = {
        name: np.stack([values[f] for f in layout.names[layout.group(name)]], axis=1)
        for name in GROUPS
    }
    members = {f for name in GROUPS for f in layout.names[layout.group(name)]}
    alone = {name: value for name, value in values.items() if name not in members}
    np.testing.assert_array_equal(layout.encode(grouped | alone), layout.encode(values))
    observation = layout.encode(values)
    assert layout.physical(observation, "gain").shape == (3, 6)
    assert layout.physical(observation[0], "gain").shape == (6,)
    np.testing.assert_allclose(
        layout.physical(observation, "g_co2e"), grouped["g_co2e"], rtol=2e-6, atol=1e-5
    )


def test_one_live_case_is_a_batch_of_one(layout: ObservationLayout) -> None:
    values = {name: float(value[0]) for name, value in values_of(layout, seed=2).items()}
    assert layout.encode(values).shape == (1, layout.size)


def test_values_beyond_the_bounds_are_clipped(layout: ObservationLayout) -> None:
    values = dict.fromkeys(layout.names, 0.0) | {"logit": 1e9, "budget_left": -1e9}
    observation = layout.encode(values)
    assert (observation <= layout.high).all()
    assert (observation >= layout.low).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": np.nan}, "probability is nan"),
        ({"probabilty": 0.5}, "Did you mean 'probability'"),
        ({"gain": np.zeros(5)}, "last axis must be 6"),
        ({"logit": np.zeros(4), "entropy": np.zeros(3)}, "expected 1 or 4"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    layout: ObservationLayout, change: dict[str, object], message: str
) -> None:
    values: dict[str, object] = dict.fromkeys(layout.names, 0.0)
    with pytest.raises(LayoutError, match=message):
        layout.encode(values | change)


def test_missing_fields_are_named(layout: ObservationLayout) -> None:
    with pytest.raises(LayoutError, match="lacks 1 fields: \\['urgency'\\]"):
        layout.encode({name: 0.0 for name in layout.names if name != "urgency"})


def test_a_vector_of_another_bundle_is_refused(layout: ObservationLayout) -> None:
    other = ObservationLayout(MODALITIES[:2], all_transfers(MODALITIES[:2]))
    with pytest.raises(LayoutError, match="another bundle"):
        layout.physical(np.zeros(other.size, dtype=np.float32), "logit")
    with pytest.raises(LayoutError, match="No group 'gains'"):
        layout.group("gains")


def test_stored_layouts_come_back_and_changed_ones_do_not(layout: ObservationLayout) -> None:
    assert ObservationLayout.from_json(layout.to_json()) == layout
    stored = json.loads(layout.to_json())
    stored["fields"][0]["scale"] = 2.0
    with pytest.raises(LayoutError, match="Train the policy again"):
        ObservationLayout.from_json(json.dumps(stored))
    for text in ("{", "[]", '{"modalities": ["clinical"]}'):
        with pytest.raises(LayoutError, match="not a stored observation layout"):
            ObservationLayout.from_json(text)
