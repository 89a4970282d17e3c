"""One network in torch, NumPy and ONNX, on any layout; changed or old files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from agent.errors import PolicyError
from agent.network import ScoringNetwork, network_tensors
from agent.policies.features import FeatureIndex, action_features, context_features, feature_names
from agent.policies.files import POLICY_FILE, WEIGHTS_FILE
from agent.policies.guide import with_advice
from agent.policies.learned import LearnedPolicy
from agent.policies.registry import make_policy
from agent.policies.scoring import TENSORS, ScoringWeights, tensor_shapes
from agent.policy_export import ONNX_FILE, export_policy, onnx_bytes
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

TOLERANCE = 1e-5


def setup(*modalities: str) -> ReviewSetup:
    names = modalities or ("clinical", "genomics", "pathology")
    return build_setup(evidence=toy_evidence(200, modalities=names), n_cases=8)


def network(
    layout: ObservationLayout, seed: int = 0, advice: float | None = None
) -> ScoringNetwork:
    torch.manual_seed(seed)
    made = ScoringNetwork(FeatureIndex.of(layout), advice_weight=advice)
    with torch.no_grad():
        made.action_out.weight.mul_(100.0)  # preferences start near 0: nothing would be compared
        made.other_out.weight.mul_(100.0)
        for parameter in made.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return made


def weights(seed: int = 0) -> ScoringWeights:
    return ScoringWeights.of_tensors(network_tensors(network(setup().layout, seed)), "test")


def observations(layout: ObservationLayout, n: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(n)
    low, high = np.maximum(layout.low, -3.0), np.minimum(layout.high, 3.0)
    seen = rng.uniform(low, high, (n, layout.size)).astype(np.float32)
    flags = layout.group("run")
    seen[:, flags] = seen[:, flags] > 0.5
    return seen


def exported(folder: Path, seed: int = 0) -> Path:
    return export_policy(
        weights(seed), setup(), folder, kind="maskable-ppo", name="net",
        provenance={"steps": 5, "seed": seed}, patients=frozenset(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "modalities",
    [(), ("clinical", "genomics"), ("clinical", "genomics", "pathology", "radiomics")],
)
def test_numpy_answers_as_torch_does_on_any_layout(modalities: tuple[str, ...]) -> None:
    """The same weights on layouts of 2, 6 and 12 transfers."""
    layout = setup(*modalities).layout
    trained = network_tensors(network(setup().layout))
    there = ScoringNetwork(FeatureIndex.of(layout))
    there.load_state_dict({name: torch.as_tensor(trained[name]) for name in TENSORS})
    numpy = ScoringWeights.of_tensors(trained, "test")
    seen = observations(layout)
    with torch.no_grad():
        logits, value = there(torch.as_tensor(seen))
    index = FeatureIndex.of(layout)
    np.testing.assert_allclose(numpy.logits(index, seen), logits.numpy(), TOLERANCE, TOLERANCE)
    np.testing.assert_allclose(numpy.value(index, seen), value[:, 0].numpy(), TOLERANCE, TOLERANCE)
    assert numpy.logits(index, seen).std() > 0.1


def test_advice_is_read_alike_in_torch_numpy_and_onnx() -> None:
    layout = setup().layout
    index, guided = FeatureIndex.of(layout), network(layout, advice=3.0)
    weights = ScoringWeights.of_tensors(network_tensors(guided), "test")
    n = len(setup().catalogue.names)
    plain = observations(layout, 300)
    advised = np.random.default_rng(0).integers(0, n, 300)
    seen = with_advice(plain, advised, n)
    with torch.no_grad():
        logits, value = guided(torch.as_tensor(seen))
    np.testing.assert_allclose(weights.logits(index, seen), logits.numpy(), TOLERANCE, TOLERANCE)
    content = onnx_bytes(weights, index, guided=True)
    there = onnxruntime.InferenceSession(content).run(None, {"observation": seen})
    np.testing.assert_allclose(there[0], logits.numpy(), 1e-4, 1e-4)
    np.testing.assert_allclose(there[1], value[:, 0].numpy(), 1e-4, 1e-4)
    lift = weights.logits(index, seen) - weights.logits(index, plain)
    assert (lift[np.arange(300), advised] > 1.0).all()


def test_features_are_finite_and_the_same_in_torch_on_empty_queues() -> None:
    layout = setup().layout
    seen = np.zeros((1, layout.size), dtype=np.float32)
    there, index = network(layout), FeatureIndex.of(layout)
    for ours, theirs in (
        (context_features(index, seen), there.context(torch.as_tensor(seen))),
        (action_features(index, seen), there.actions(torch.as_tensor(seen))),
    ):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs.numpy())


def test_transfers_are_scored_alike_wherever_they_stand() -> None:
    """Swapping two modalities swaps the scores and changes nothing else."""
    here, there = setup(), setup("clinical", "pathology", "genomics")
    seen = observations(here.layout, 50)
    moved = np.empty_like(seen)
    for name in here.layout.names:
        moved[:, there.layout.index(name)] = seen[:, here.layout.index(name)]
    policies = [
        LearnedPolicy(layout=s.layout, catalogue=s.catalogue, weights=weights(), trained="")
        for s in (here, there)
    ]
    ours, theirs = policies[0].preferences(seen), policies[1].preferences(moved)
    order = [there.catalogue.index(name) for name in here.catalogue.names]
    np.testing.assert_allclose(ours, theirs[:, order], TOLERANCE, TOLERANCE)


def test_onnx_answers_as_numpy_does_for_any_batch(tmp_path: Path) -> None:
    folder, layout = exported(tmp_path), setup().layout
    session = onnxruntime.InferenceSession(folder / ONNX_FILE)
    for n in (1, 7, 500):
        seen = observations(layout, n)
        logits, value = session.run(None, {"observation": seen})
        index = FeatureIndex.of(layout)
        np.testing.assert_allclose(logits, weights().logits(index, seen), 1e-4, 1e-4)
        np.testing.assert_allclose(value, weights().value(index, seen), 1e-4, 1e-4)


def test_the_same_network_exports_the_same_bytes(tmp_path: Path) -> None:
    for name in (WEIGHTS_FILE, ONNX_FILE):
        ours, theirs = (exported(tmp_path / which) / name for which in ("a", "b"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_it_acts_on_another_cohort_and_says_so(tmp_path: Path) -> None:
    folder, other = exported(tmp_path), setup("clinical", "genomics", "radiomics", "pathology")
    home, away = (make_policy(str(folder) + "/", s.layout, s.catalogue) for s in (setup(), other))
    assert isinstance(home, LearnedPolicy)
    assert isinstance(away, LearnedPolicy)
    assert (home.elsewhere, away.elsewhere) == ("", "clinical, genomics, pathology")
    seen = observations(other.layout, 20)
    mask = np.ones((20, other.catalogue.n), dtype=bool)
    actions = away.act(seen, mask)
    assert "trained on clinical, genomics, pathology" in away.reason(seen[0], int(actions[0]))
    assert "trained on" not in home.reason(observations(setup().layout, 1)[0], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": {**feature_names(), "features_version": 0}}, "features of version 2.0"),
        ({"features": {**feature_names(), "layout_version": 1}}, "features of version 1.1"),
        ({"kind": "ppo", "hidden_layers": 2}, "network of an earlier version"),
        ({"weights": None}, "without a network"),
    ],
)
def test_other_versions_and_old_networks_are_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = exported(tmp_path)
    stored = json.loads((folder / POLICY_FILE).read_text())
    (folder / POLICY_FILE).write_text(json.dumps({**stored, **change}))
    with pytest.raises(PolicyError, match=message):
        make_policy(f"{folder}/", setup().layout, setup().catalogue)


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(PolicyError, match="bytes have changed"):
        make_policy(f"{folder}/", setup().layout, setup().catalogue)


def test_weights_of_other_names_shapes_or_values_are_refused() -> None:
    good = {name: np.zeros(shape, dtype=np.float32) for name, shape in tensor_shapes(8, 4).items()}
    ScoringWeights.of_tensors(good, "w")
    with pytest.raises(PolicyError, match="not an action-scoring network's"):
        ScoringWeights.of_tensors({"hidden.0.weight": good["value_in.weight"]}, "w")
    for name, tensor in (
        ("other_out.bias", np.zeros(3, dtype=np.float32)),
        ("value_in.weight", good["value_in.weight"].astype(np.float64)),
        ("action_mid.weight", np.zeros(4, dtype=np.float32)),
    ):
        with pytest.raises(PolicyError, match="Train the policy again"):
            ScoringWeights.of_tensors({**good, name: tensor}, "w")
    broken = good["value_out.bias"] * np.nan
    with pytest.raises(PolicyError, match="not finite"):
        ScoringWeights.of_tensors({**good, "value_out.bias": broken}, "w")
