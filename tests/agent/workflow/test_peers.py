from __future__ import annotations

import numpy as np
import pytest

from agent.workflow.peers import NEEDED, PeerBook, peer_lines, wilson
from distill.evidence import EvidenceTable
from distill.transfers import EvidenceSets, Transfer

MODALITIES = ("clinical", "genomics")
TRANSFERS = (Transfer(source="clinical", target="genomics"),
             Transfer(source="genomics", target="clinical"))  # fmt: skip


def table(logit: np.ndarray, label: np.ndarray, *, group: tuple[str, ...] = (),
          genomics: np.ndarray | None = None) -> EvidenceTable:  # fmt: skip
    """Every set has the same scores, save that sets with genomics add 1."""
    n, sets = len(logit), EvidenceSets.enumerate(TRANSFERS)
    there = np.ones(n, dtype=bool) if genomics is None else genomics
    present = np.stack([np.ones(n, dtype=bool), there], axis=1)
    done = sets.processed(MODALITIES)[:, 1]
    scores = np.where(done, logit[:, None] + 1.0, logit[:, None])
    scores = np.where(done[None, :] & ~there[:, None], np.nan, scores)
    return EvidenceTable(
        cohort="toy", synthetic=True, modalities=MODALITIES, sets=sets,
        case_id=tuple(f"secret{i}" for i in range(n)),
        group=group or tuple(f"h{i % 7}" for i in range(n)),
        fold=np.zeros(n, dtype=np.int16), label=label.astype(np.int8), present=present,
        quality=present.astype(np.float32), logit=scores.astype(np.float32),
        disagreement=np.zeros_like(scores, dtype=np.float32), pipeline_kwh=np.array([0.0, 1.0]),
        transfer_kwh=np.zeros(2), meta={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Agresti and Coull 1998's closed form; 0 of 10: z2 / (n + z2) = .2775; 1 of 2 is symmetric
    [(0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (1, 2, 0.09453, 0.90547),
     (15, 50, 0.19101, 0.43751)],
)  # fmt: skip
def test_wilson_by_hand(hits: int, n: int, low: float, high: float) -> None:
    share = wilson(hits, n)
    assert share.ci95 == pytest.approx((low, high), abs=1e-4)
    assert share.ci95[0] <= share.value <= share.ci95[1]


def test_wilson_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for p in (0.1, 0.5):
        hits = rng.binomial(50, p, 2000)
        inside = [(s := wilson(int(h), 50)).ci95[0] <= p <= s.ci95[1] for h in hits]
        assert 0.92 < np.mean(inside) < 0.98


def brute(scores: np.ndarray, at: float, k: int = 50, far: float = 1.0) -> np.ndarray:
    near = np.flatnonzero(np.abs(scores - at) <= far)
    return near[np.argsort(np.abs(scores[near] - at), kind="stable")][:k]


@pytest.mark.parametrize("at", [-6.0, -2.0, -0.3, 0.0, 1.7, 3.0])
def test_the_nearest_are_those_of_a_search_through_everyone(at: float) -> None:
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 400)
    label = (rng.random(400) < 1 / (1 + np.exp(-logit))).astype(int)
    evidence = table(logit, label)
    found = PeerBook(evidence=evidence).like([], MODALITIES, at)
    scores = evidence.logit[:, 0].astype(float)
    rows = brute(scores, at)
    assert found.n == len(rows)
    if found.n >= NEEDED:
        p = 1 / (1 + np.exp(-scores[rows]))
        assert found.share_positive is not None
        assert found.share_positive.value == pytest.approx(label[rows].mean())
        assert found.mean_probability == pytest.approx(p.mean())
        assert found.suggestion_right is not None
        assert found.suggestion_right.value == pytest.approx(((p >= 0.5) == label[rows]).mean())
        assert found.hospitals == len({evidence.group[i] for i in rows})
        assert (found.probability_low, found.probability_high) == pytest.approx((p.min(), p.max()))


def test_only_the_same_evidence_and_the_same_modalities_count() -> None:
    logit = np.zeros(60) + np.linspace(-0.01, 0.01, 60)
    genomics = np.arange(60) < 40
    label = np.where(genomics, 1, 0)
    book = PeerBook(evidence=table(logit, label, genomics=genomics))
    with_it, without = book.like([], MODALITIES, 0.0), book.like([], ["clinical"], 0.0)
    assert (with_it.n, without.n) == (40, 20)
    assert with_it.share_positive is not None
    assert without.share_positive is not None
    assert (with_it.share_positive.value, without.share_positive.value) == (1.0, 0.0)
    # the set with genomics processed has other scores, one higher
    moved = book.like(["genomics->clinical"], MODALITIES, 1.0)
    assert moved.n == 40
    assert moved.mean_probability == pytest.approx(0.731, abs=0.01)
    assert book.like(["genomics->clinical"], ["clinical"], 1.0).n == 0


def test_too_few_are_said_to_be_too_few() -> None:
    book = PeerBook(evidence=table(np.full(NEEDED - 1, 0.2), np.ones(NEEDED - 1)))
    few = book.like([], MODALITIES, 0.2)
    assert (few.n, few.share_positive, few.hospitals) == (NEEDED - 1, None, None)
    (line,) = peer_lines(few)
    assert f"only {NEEDED - 1}" in line
    assert "say nothing" in line
    far = book.like([], MODALITIES, 5.0)
    assert far.n == 0
    assert "nobody" in peer_lines(far)[0]


def test_a_cohort_without_hospitals_counts_none() -> None:
    own = tuple(f"p{i}" for i in range(30))
    found = PeerBook(evidence=table(np.zeros(30), np.arange(30) % 2, group=own)).like(
        [], MODALITIES, 0.0
    )
    assert found.hospitals is None
    assert "hospital" not in " ".join(peer_lines(found))


def test_sentences_name_nobody_and_say_whether_the_probability_held() -> None:
    rng = np.random.default_rng(2)
    logit = rng.normal(0, 0.2, 200)
    told = PeerBook(evidence=table(logit, rng.integers(0, 2, 200))).like([], MODALITIES, 0.0)
    text = " ".join(peer_lines(told))
    assert "50 from 7 hospitals" in text
    assert "agrees with" in text
    assert "secret" not in told.model_dump_json()
    assert "h1" not in told.model_dump_json()
    wrong = PeerBook(evidence=table(logit, np.zeros(200))).like([], MODALITIES, 0.0)
    assert "does not agree with" in peer_lines(wrong)[0]
    assert peer_lines(None) == []


def test_the_scores_are_sorted_once() -> None:
    rng = np.random.default_rng(3)
    book = PeerBook(evidence=table(rng.normal(0, 1, 300), rng.integers(0, 2, 300)))
    first = book.like([], MODALITIES, 0.0)
    kept = dict(book._alike)
    assert book.like([], MODALITIES, 0.0) == first
    assert all(book._alike[key] is value for key, value in kept.items())
