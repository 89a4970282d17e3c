"""Actions: names, indices, and the one rule that masks them."""

from __future__ import annotations

import numpy as np
import pytest

from distill.transfers import TransferError, all_transfers
from envs.catalogue import ActionCatalogue
from envs.errors import CatalogueError

MODALITIES = ("clinical", "genomics", "pathology")


@pytest.fixture
def catalogue() -> ActionCatalogue:
    return ActionCatalogue(all_transfers(MODALITIES))


def test_transfers_lead_then_finalise_then_defer(catalogue: ActionCatalogue) -> None:
    assert catalogue.names[:1] == ("genomics->pathology",)
    assert catalogue.names[-2:] == ("finalise", "defer")
    assert catalogue.n == 8
    assert [catalogue.index(name) for name in catalogue.names] == list(range(8))
    assert ActionCatalogue(t.name for t in catalogue.transfers) == catalogue


def test_unknown_actions_are_refused_with_the_nearest(catalogue: ActionCatalogue) -> None:
    with pytest.raises(CatalogueError, match="Did you mean 'finalise'"):
        catalogue.index("finalize")
    with pytest.raises(CatalogueError, match="twice"):
        ActionCatalogue(["a->b", "a->b"])
    with pytest.raises(TransferError):
        ActionCatalogue(["a>b"])


def test_each_reason_masks_and_finalise_stays_open(catalogue: ActionCatalogue) -> None:
    t = catalogue.n_transfers
    ones = np.ones((4, t), dtype=bool)
    present = np.array([[True, True, True], [True, False, True]] * 2)
    available = catalogue.available(MODALITIES, present)
    run = np.zeros((4, t), dtype=bool)
    run[0, 0] = True
    affordable = ones.copy()
    affordable[2] = False
    mask = catalogue.action_mask(
        available=available,
        run=run,
        may_defer=np.array([True, False, True, True]),
        affordable=affordable,
    )
    from_genomics = np.array([tr.source == "genomics" for tr in catalogue.transfers])
    assert not mask[0, 0]
    assert mask[0, 1:].all()
    assert (mask[1, :t] == ~from_genomics).all()
    assert not mask[2, :t].any()
    assert mask[:, catalogue.finalise].all()
    assert mask[:, catalogue.defer].tolist() == [True, False, True, True]


def test_the_depth_limit_closes_every_transfer() -> None:
    modalities = ("clinical", "genomics", "pathology", "radiomics")
    catalogue = ActionCatalogue(all_transfers(modalities))
    run = np.zeros((1, catalogue.n_transfers), dtype=bool)
    run[0, : catalogue.depth] = True
    mask = catalogue.action_mask(available=np.ones_like(run), run=run, may_defer=np.array([False]))
    assert np.flatnonzero(mask[0]).tolist() == [catalogue.finalise]


def test_a_source_outside_the_modalities_is_refused(catalogue: ActionCatalogue) -> None:
    with pytest.raises(CatalogueError, match="'pathology', which is not among"):
        catalogue.available(("clinical", "genomics"), np.ones((1, 2), dtype=bool))
