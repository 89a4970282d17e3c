"""What the student is fitted to, as tensors: patients, soft labels, latents, synthetic rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Tensors of the training patients and of the synthetic rows.

    Attributes:
        x: features, zeros where absent or padded; with times one row more.
        present: which modalities each patient has.
        target: mixture of the hard label and the soft label of all teachers; the soft one alone
            where there is no label.
        label: hard label; the soft one where there is none.
        labelled: 1 where there is a label, else 0.
        teacher: held-out probability of each modality's teacher, 0.5 where absent.
        latent: each modality's teacher latent, zeros where absent.
        synthetic_x: synthetic rows per modality.
        synthetic_logit: the teachers' calibrated log-odds for them.
        prior: log-odds of the positive class among the training patients.
        doubt: for every mixture of modalities (bit j: modality j), how little its teachers know.
    """

    x: Float[Tensor, "rows inputs features"]
    present: Bool[np.ndarray, "rows modalities"]
    target: Float[Tensor, " rows"]
    label: Float[Tensor, " rows"]
    labelled: Float[Tensor, " rows"]
    teacher: Float[Tensor, "rows modalities"]
    latent: Float[Tensor, "rows modalities latent"]
    synthetic_x: Float[Tensor, "synthetic modalities features"]
    synthetic_logit: Float[Tensor, "synthetic modalities"]
    prior: float
    doubt: Float[Tensor, " mixtures"] | None = None
