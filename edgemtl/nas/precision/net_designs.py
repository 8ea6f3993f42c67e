"""Designs of a net's space as its engines: scored and timed one by one, as the loop of a search wants it."""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.nas.evaluation import Evaluation, LatencyPrediction, Turns, Watch
from edgemtl.nas.precision.finalists import Candidate, Finalist
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_plan import channels_in
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.prune import Fit
from edgemtl.own import FLOAT, INT4, INT8, OwnPrecision
from edgemtl.spaces import Design, Option, Space

__all__ = ["NetDesigns"]

_KEY_LETTERS = 8


@dataclass(frozen=True)
class NetDesigns:
    """The designs of a space, which mean `forms` of a net in precisions of their own; a `DesignEvaluator`."""

    space: Space
    forms: NarrowForms
    estimate: None = None

    @property
    def turns(self) -> Turns:
        """See `DesignEvaluator`."""
        return self.forms.whole.setup.bench.turns

    def evaluate(
        self, design: Design, watch: Watch | None = None, predicted: LatencyPrediction | None = None
    ) -> Evaluation:
        """Scores of a design's engine on the images that decide, and its latency by scope, measured alone."""
        with self.turns.among_others():
            proposal, precision = self._meaning(design)
            metrics = proposal.candidate(precision, _short(design)).metrics
        with self.turns.alone():
            evaluation = Evaluation(design, metrics, proposal.latency_ms(precision))
        self.forms.let_go(proposal.setup.name)
        return evaluation

    def candidate(self, evaluation: Evaluation) -> Candidate:
        """An evaluated design as a candidate for a choice."""
        proposal, precision = self._meaning(evaluation.design)
        name = "-".join(part for part in (proposal.setup.name or "mixed", _short(evaluation.design)) if part)
        return Candidate(name, proposal.setup, precision, evaluation.metrics, uniform=False)

    def design(self, candidate: Candidate) -> Design:
        """The design that a candidate of a greedy search is."""
        channels, precision = candidate.setup.channels, candidate.precision.values
        values = dict[str, Option](self.space.largest())
        for choice in self.space.choices:
            if choice.precision_of:
                kind = precision.get(choice.precision_of, FLOAT)
                values[choice.name] = kind if kind in choice.options else FLOAT
        kept = {f"{group}.channels": count for group, count in channels.items()}
        return self.space.design({**values, **{name: count for name, count in kept.items() if name in values}})

    def known(self, finalist: Finalist) -> Evaluation:
        """A finalist of a greedy search as the evaluation of its design.

        Blocks of the net as it was given may be cut otherwise than those of its export, which the space names: a
        precision that is none of the space's is evaluated as the nearest that is.
        """
        candidate = finalist.candidate
        design = self.design(candidate)
        if candidate.setup.whole and self._meaning(design)[1].values != candidate.precision.values:
            return self.evaluate(design)
        return Evaluation(design, candidate.metrics, finalist.latency_ms)

    def _meaning(self, design: Design) -> tuple[Proposal, OwnPrecision]:
        """The form of the net that a design is of, and its precision."""
        unrounded = design.in_float()
        proposal = self.forms.whole
        if unrounded != self.space.largest():
            fit = Fit(channels_in(self.space.spec, design), {})
            proposal = self.forms.proposal(f"pruned-{_short(unrounded)}", fit)
        kinds = design.precision
        eight, four = ([block for block, kind in kinds.items() if kind == each] for each in (INT8, INT4))
        return proposal, proposal.precision(kinds["engine"], eight, four)


def _short(design: Design) -> str:
    return design.key[:_KEY_LETTERS]
