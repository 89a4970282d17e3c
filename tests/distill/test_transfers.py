"""Transfers, and the sets of them that a patient can reach."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.transfers import (
    MAX_EVIDENCE_SETS,
    NAMED_FIRST,
    EvidenceSets,
    Transfer,
    TransferError,
    all_transfers,
    max_depth,
)

THREE = ("clinical", "genomics", "pathology")
modality_lists = st.integers(1, 5).map(lambda n: ("clinical", *"abcd"[: n - 1]))


def test_the_three_named_transfers_lead_the_catalogue() -> None:
    transfers = all_transfers(THREE)
    assert tuple((t.source, t.target) for t in transfers[:3]) == NAMED_FIRST
    assert {(t.source, t.target) for t in transfers} == {
        (s, t) for s in THREE for t in THREE if s != t
    }


@given(modality_lists)
def test_every_ordered_pair_once(modalities: tuple[str, ...]) -> None:
    names = [t.name for t in all_transfers(modalities)]
    assert len(names) == len(set(names)) == len(modalities) * (len(modalities) - 1)
    assert [Transfer.parse(name).name for name in names] == names


@pytest.mark.parametrize("bad", ["", "a", "a->", "->a", "a->a", "a->b->c", "a-b"])
def test_a_bad_transfer_name_is_refused(bad: str) -> None:
    with pytest.raises(TransferError, match="not of the form"):
        Transfer.parse(bad)


@given(modality_lists)
def test_sets_are_all_subsets_up_to_the_depth(modalities: tuple[str, ...]) -> None:
    transfers = all_transfers(modalities)
    sets = EvidenceSets.enumerate(transfers)
    depth = max_depth(transfers)
    assert len(sets.bits) == sum(comb(len(transfers), d) for d in range(depth + 1))
    assert len(set(sets.bits.tolist())) == len(sets.bits) <= MAX_EVIDENCE_SETS
    assert sets.bits[0] == 0
    # Whatever the number of modalities, each can be processed once.
    assert depth >= len({t.source for t in transfers} - {"clinical"})


@given(modality_lists, st.data())
def test_next_set_adds_exactly_that_transfer(
    modalities: tuple[str, ...], data: st.DataObject
) -> None:
    transfers = all_transfers(modalities)
    sets = EvidenceSets.enumerate(transfers)
    k = data.draw(st.integers(0, len(sets.bits) - 1))
    depth = max_depth(transfers)
    for t in range(len(transfers)):
        after = int(sets.next_set[k, t])
        if sets.membership[k, t] or sets.membership[k].sum() == depth:
            assert after == -1
        else:
            expected = sets.membership[k].copy()
            expected[t] = True
            assert np.array_equal(sets.membership[after], expected)


def test_names_and_indices_are_inverse() -> None:
    sets = EvidenceSets.enumerate(all_transfers(THREE))
    assert sets.name(0) == "skip"
    assert sets.index_of([]) == 0
    for k in range(1, len(sets.bits)):
        assert sets.index_of(sets.name(k).split("+")) == k


def test_a_set_processes_clinical_and_its_sources() -> None:
    sets = EvidenceSets.enumerate(all_transfers(THREE))
    done = sets.processed(THREE)
    for size in range(3):
        for names in combinations([t.name for t in sets.transfers], size):
            expected = {"clinical"} | {Transfer.parse(name).source for name in names}
            row = done[sets.index_of(names)]
            assert {m for m, is_done in zip(THREE, row, strict=True) if is_done} == expected


def test_unknown_transfer_and_too_many_are_refused() -> None:
    sets = EvidenceSets.enumerate(all_transfers(("clinical", "a", "b", "c")))
    with pytest.raises(TransferError, match="Unknown transfer"):
        sets.index_of(["x->y"])
    with pytest.raises(TransferError, match="more than one case may have"):
        sets.index_of([t.name for t in sets.transfers])
