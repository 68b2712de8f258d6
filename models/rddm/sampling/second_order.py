"""DPM-Solver++ for RDDM (ours, not published): fewer steps for the same error."""

import numpy as np

from jaxcore.models.rddm.process.schedule import RDDMSchedule
from jaxcore.models.rddm.sampling.table import SamplingTable, Spacing, divided, make_table, steps_of


def dpm_solver(
    schedule: RDDMSchedule, steps: int, *, spacing: Spacing = "linear", clip: bool = True
) -> SamplingTable:
    """DPM-Solver++(2M) on ``I_t - a_t I_in = (1 - a_t) I_0 + b_t e``, without fresh noise.

    With ``l = log((1 - a) / b)``, the step ``h = l_s - l_t``, the one before it ``h'`` and
    ``r = b_s / b_t``:
    ``I_s = r I_t + (a_s - r a_t) I_in + ((1 - a_s) - r (1 - a_t)) D`` with
    ``D = (1 + h / 2h') I_0 - (h / 2h') I_0'``, where ``I_0'`` was predicted a step before. The step
    is of first order where h or h' is not finite: at pure noise and at the clean image. Lu et al.,
    "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models", 2022.

    Args:
      schedule: both schedules.
      steps: calls of the networks.
      spacing: of the times; "log_snr" makes the steps h equal.
      clip: cut the predictions.

    Raises:
      UserError: more steps than times.

    >>> dpm_solver(RDDMSchedule.polynomial(), 3).rows.clean.tolist()
    [0.11177819967269897, 0.38917994499206543, 1.0]
    """
    at = steps_of(schedule, steps, spacing)
    with np.errstate(divide="ignore", invalid="ignore"):
        start = np.log(1 - at.a_t) - np.log(at.b_t)
        end = np.log(1 - at.a_s) - np.log(at.b_s)
        length = end - start
        before = np.concatenate([[np.inf], length[:-1]])
        lean = length / (2 * before)
    lean = np.where(np.isfinite(lean) & np.isfinite(length), lean, 0.0)
    ratio = divided(at.b_s, at.b_t)
    weight = (1 - at.a_s) - (1 - at.a_t) * ratio
    weights = {
        "x": ratio,
        "degraded": at.a_s - ratio * at.a_t,
        "clean": weight * (1 + lean),
        "previous": -weight * lean,
    }
    return make_table(schedule, at, weights, clip=clip)
