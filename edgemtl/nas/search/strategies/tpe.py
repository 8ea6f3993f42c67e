"""Multi-objective TPE (Ozaki et al. 2022, Watanabe 2023): densities of good and of other designs, choice by choice."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from edgemtl.nas.search.strategies.replay import ReplayedSampler

__all__ = ["TpeSampler"]


class TpeSampler(ReplayedSampler):
    """Optuna's TPE after a first batch of random designs, constrained by the problem's budgets and floors."""

    def seeded(self, seed: int) -> BaseSampler:
        """Optuna's, as seeded."""
        return TPESampler(seed=seed, n_startup_trials=self._batch, constraints_func=lambda trial: ())
