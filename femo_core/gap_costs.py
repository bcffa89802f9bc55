"""What a gap between two full steps is expected to cost, for every gap at once, and the cheapest chain of gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_FACTOR = 2.0  # of a fitted slope


@dataclass(frozen=True)
class GapCosts:
    """By the full step before the last (p; S stands for none), the last full step (l) and the next (n; S is the end).

    costs: (S + 1, S, S + 1), ‖Σ weight · (forecast − truth)‖² over the gap's steps, mean over a feature's numbers; inf
        where p, l, n do not ascend.
    factors: (S + 1, S, S + 1), what the slope from p to l counts for in the gap's forecasts.
    """

    costs: Tensor
    factors: Tensor

    def best_steps(self, budget: int) -> tuple[int, ...]:
        """The `budget` full steps whose gaps cost least together: dynamic programming over the last two.

        least[p, l]: of the gaps so far, where p and l are the last full steps.
        """
        total = self.costs.shape[1]
        least = torch.full((total + 1, total), torch.inf, dtype=torch.float64)
        least[total, 0] = 0.0
        choices: list[Tensor] = []
        for _ in range(budget - 1):
            best, before = (least[:, :, None] + self.costs[:, :, :total]).min(0)  # by the last and the next
            choices.append(before)
            least = torch.cat((best, torch.full((1, total), torch.inf, dtype=torch.float64)))
        before, last = divmod(int((least + self.costs[:, :, total]).argmin()), total)
        steps = [last]
        for choice in reversed(choices):
            steps.append(before)
            before, last = int(choice[before, last]), before
        return tuple(reversed(steps))

    def of(self, steps: Sequence[int]) -> tuple[float, tuple[float, ...]]:
        """The cost of these full steps' gaps together, and the factor of each."""
        total = self.costs.shape[1]
        where = ((total, *steps[:-1]), tuple(steps), (*steps[1:], total))
        index = tuple(torch.tensor(each) for each in where)
        return float(self.costs[index].sum()), tuple(float(factor) for factor in self.factors[index])


def gap_costs(gram: Tensor, step_weights: Sequence[float], slope: float = 1.0, pull: float | None = None) -> GapCosts:
    """Of a line through the last two full steps, its slope counting for a factor or, with `pull`, as suits each gap.

    gram: (S, S) float64. step_weights: S numbers, of an error at each step. slope: 0 is reuse, 1 TaylorSeer O = 1,
    between the two a slope that is held back. pull: a gap's factor a makes ‖gap's error‖² +
    pull · (a − slope)² ‖what the slope adds up to‖² smallest, within 0 … MOST_FACTOR: 0 is the fit itself.

    A gap's weighted errors sum to W f_l + a K (f_l − f_p) / (l − p) − R: W its weights, K the same times the distance
    from l, R the weighted truth; inner products of R are differences of sums from the start.
    """
    weights = torch.as_tensor(step_weights, dtype=torch.float64, device="cpu")
    total = len(weights)
    place = torch.arange(total)
    sums, moments = _from_zero(weights), _from_zero(weights * place)
    feature_truth = _from_zero(gram * weights)  # ⟨f_i, Σ_{j<n} w f_j⟩
    truth_truth = _from_zero((feature_truth * weights[:, None]).T).T
    start, norms = place + 1, gram.diagonal()
    within = sums - sums[start, None]  # (l, n)
    distances = moments - moments[start, None] - place[:, None] * within
    truth = truth_truth.diagonal() - 2 * truth_truth[start] + truth_truth[start, start][:, None]
    own = feature_truth[:, None, :] - feature_truth[:, start, None]  # (i, l, n): ⟨f_i, R⟩
    last_truth = own.diagonal().T
    reuse = within**2 * norms[:, None] - 2 * within * last_truth + truth
    apart = (place - place[:, None]).double()  # (p, l): l − p
    length = apart.where(apart > 0, torch.inf)
    along = (within * (norms - gram)[:, :, None] - (last_truth - own)) / length[:, :, None]  # ⟨W f_l − R, slope⟩
    steep = (norms - 2 * gram + norms[:, None]) / length**2  # ‖slope‖²
    factors = torch.full_like(along, slope)
    if pull is not None:
        square = distances**2 * steep[:, :, None]
        fitted = (pull * slope * square - distances * along) / ((1 + pull) * square)
        factors = torch.where(square > 0, fitted.clamp(0.0, MOST_FACTOR), slope)
    costs = reuse + 2 * factors * distances * along + factors**2 * distances**2 * steep[:, :, None]
    costs = torch.cat((costs, reuse[None])).clamp_min(0.0)
    ends = torch.arange(total + 1)
    costs[:, place[:, None] >= ends] = torch.inf
    costs[:total][apart <= 0] = torch.inf
    return GapCosts(costs, torch.cat((factors, torch.zeros_like(reuse)[None])))


def _from_zero(values: Tensor) -> Tensor:
    """Sums up to, and without, each index, along the last dimension: one more than there are values."""
    return torch.nn.functional.pad(values.cumsum(-1), (1, 0))
