"""Multi-loss dynamic training (Zheng et al. 2019, arXiv:1810.12193, section 3.2.2): which of two losses to minimise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from reid_core.settings import Fraction, Part

Branch = Literal["primary", "both"]
Weighting = Literal["focal", "equal"]

_SMALLEST_LIKELIHOOD = 1e-6


class DynamicSettings(Part):
    """Algorithm 1 and equations 5 to 8.

    The focal weights of eq. 8 are small: alpha = 0.25 keeps p at 0.75 or more and so FL, with gamma = 2, at 0.018 or
    less. `weighting` "equal" weighs both losses with 1 and leaves FL the choice of the branch, as the authors' code.
    """

    enabled: bool = Field(default=True, description="false: both losses, unweighted, on balanced batches at every step")
    alpha: Fraction = Field(default=0.25, description="weight of the newest loss in its moving average")
    gamma: float = Field(default=2, ge=0, description="how strongly a loss that falls slowly is weighted down")
    threshold: float = Field(default=0.16, ge=0, description="below this ratio of focal weights: identity loss alone")
    weighting: Weighting = Field(default="focal", description="of both losses; equal: 1 and 1, as the authors' code")


class DynamicLosses(nn.Module):
    """Chooses before every step between the primary loss alone and both losses, from how fast each has been falling.

    A step, as algorithm 1 has it (`step` does 2 and 3):

    1. `branch` says which batch to draw. "primary": a random one, and only the primary loss is minimised, unweighted
       (eq. 2). "both": an identity-balanced one, and both are minimised with their focal weights (eq. 8). It is "both"
       where FL_secondary / FL_primary >= threshold. Neither it nor `weights` changes before step 3: they rest on the
       losses of the steps before, never on the batch they are for.
    2. The batch is drawn and both losses are computed on it. With "primary" the secondary is measured without
       gradient: algorithm 1 starts with its focal weight at 0, where it would stay forever if it were not measured.
    3. `update` takes the plain values: k, p and FL move on (eq. 5-7), and `branch` is that of the next step.

        k_t = alpha L_t + (1 - alpha) k_(t-1);   p_t = min(k_t, k_(t-1)) / k_(t-1);   FL_t = -(1 - p_t)^gamma ln p_t

    Where the formulas say nothing, or 0 / 0:

    - before the first loss p = 0 for the primary and 1 for the secondary (algorithm 1): the first step is "primary";
    - with the first loss, k = L and p = 1, since k_(-1) = L_0 (eq. 5);
    - k_(t-1) = 0: p = 1, for a loss of zero cannot be reduced;
    - p below 1e-6, which alpha = 1 and the start allow, counts as 1e-6 in FL, so that no weight is infinite;
    - FL_primary = 0 < FL_secondary: the ratio is infinite, "both", and the primary loss weighs nothing;
    - both FL = 0: "primary", as the weights of eq. 8 would let such a step learn nothing;
    - a loss that is not given (no positive pair in the batch) or not finite leaves its own k and p as they are;
    - a batch without a secondary loss is one of the primary loss alone, whatever the branch.

    All of it is in `state_dict` as plain floats, so a resumed run goes on exactly.

    Args:
        primary, secondary: names of losses that are never negative.
        settings: where they are not enabled every step is "both" with weights of 1; k, p and FL are only measured.
    """

    def __init__(self, primary: str, secondary: str, settings: DynamicSettings) -> None:
        super().__init__()
        self.primary, self.secondary, self.settings = primary, secondary, settings
        self._averages: dict[str, float] = {}
        self._likelihoods = {primary: 0.0, secondary: 1.0}

    @property
    def branch(self) -> Branch:
        """The losses of the next step, and so its batch: "primary" draws a random one, "both" a balanced one."""
        if not self.settings.enabled:
            return "both"
        focal = self._focal_weights()
        # Multiplied out, since FL_primary may be 0.
        dominates = focal[self.secondary] >= self.settings.threshold * focal[self.primary]
        return "both" if dominates and focal[self.secondary] > 0 else "primary"

    def weights(self) -> dict[str, float]:
        """The weight of each loss in the next step: 1 and 0 in the branch "primary"."""
        if self.branch == "primary":
            return {self.primary: 1.0, self.secondary: 0.0}
        focal = self.settings.enabled and self.settings.weighting == "focal"
        return self._focal_weights() if focal else {self.primary: 1.0, self.secondary: 1.0}

    def weigh(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """`weights`; without a secondary loss those of the primary loss alone."""
        return self.weights() if self.secondary in losses else {self.primary: 1.0, self.secondary: 0.0}

    def step(self, losses: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted terms to minimise, and what to record of this step; then `update`.

        The terms are `weighted_<name>` of losses that count. Recorded are the plain losses, `both_losses` (1 or 0) and
        `measures`. `losses` has the primary one and, where the batch allows it, the secondary one.
        """
        weights = self.weigh(losses)
        terms = {f"weighted_{name}": weights[name] * value for name, value in losses.items() if weights[name] > 0}
        plain = {name: value.detach() for name, value in losses.items()}
        self.update({name: float(value) for name, value in plain.items()})
        both = {"both_losses": float(weights[self.secondary] > 0)}
        return terms, plain | {name: torch.tensor(value) for name, value in (both | self.measures()).items()}

    def update(self, losses: Mapping[str, float]) -> None:
        """Takes the plain, unweighted losses of the step that was just computed; other names are ignored."""
        for name in self._likelihoods:
            if name in losses and math.isfinite(losses[name]):
                before = self._averages.get(name, losses[name])
                # Exactly `before` where the loss is just that.
                now = before + self.settings.alpha * (losses[name] - before)
                self._averages[name] = now
                self._likelihoods[name] = min(now, before) / before if before > 0 else 1.0

    def measures(self) -> dict[str, float]:
        """k (once there is one), p and FL of each loss after the last `update`: `<name>_k`, `<name>_p`, `<name>_fl`."""
        averages = {f"{name}_k": average for name, average in self._averages.items()}
        likelihoods = {f"{name}_p": likelihood for name, likelihood in self._likelihoods.items()}
        return averages | likelihoods | {f"{name}_fl": weight for name, weight in self._focal_weights().items()}

    def get_extra_state(self) -> dict[str, dict[str, float]]:
        return {"averages": dict(self._averages), "likelihoods": dict(self._likelihoods)}

    def set_extra_state(self, state: Any) -> None:
        self._averages, self._likelihoods = dict(state["averages"]), dict(state["likelihoods"])

    def _focal_weights(self) -> dict[str, float]:
        return {
            name: (1 - likelihood) ** self.settings.gamma * abs(math.log(max(likelihood, _SMALLEST_LIKELIHOOD)))
            for name, likelihood in self._likelihoods.items()
        }
