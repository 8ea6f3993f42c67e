"""Precisions of a net that a search proposes: each uniform one, and mixtures that keep the floors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from edgemtl.models.quantization import Ranges
from edgemtl.nas.evaluation import medians_in_turns
from edgemtl.nas.precision.candidates import Agreements, gentlest_first, longest_kept, worth_rounding
from edgemtl.nas.precision.finalists import Candidate, uniform_name
from edgemtl.nas.precision.floors import Metrics
from edgemtl.nas.precision.scoring import by_agreement
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.own import FLOAT, INT8, OwnPrecision
from edgemtl.progress import Progress, Report

__all__ = ["Proposal"]


class Proposal:
    """Precisions of one net, each scored on the images that decide."""

    def __init__(self, setup: Setup, scored: Scored, report: Report) -> None:
        self.setup, self._scored, self._report = setup, scored, report
        self.engines = setup.bench.target.traits.engine_precisions

    def candidates(self) -> Iterator[Candidate]:
        """The uniform precisions, the net in float first; then, for each engine, mixtures that keep the floors."""
        yield from self.uniform()
        if self.setup.blocks:
            for engine in self.engines:
                yield from self._mixed(engine)

    def uniform(self) -> Iterator[Candidate]:
        """The uniform precisions, the net in float first."""
        for chosen in dict.fromkeys(((), self.setup.blocks)):
            for engine in self.engines:
                precision = self.precision(engine, chosen)
                yield self.candidate(precision, uniform_name(precision))

    @cached_property
    def order(self) -> list[str]:
        """Blocks, those first that lose least alone in INT8: what the preference weighs more counts more."""
        blocks, alone = self.setup.blocks, dict[str, Agreements]()
        for number, block in enumerate(blocks):
            self._report(Progress("precision", number, len(blocks), block))
            alone[block] = self._agreement(self.precision(self.engines[0], (block,)))
        self._report(Progress("precision", len(blocks), len(blocks)))
        return gentlest_first(alone, self.setup.floors.weighted_drops)

    @property
    def block_losses(self) -> dict[str, dict[str, float]]:
        """The share of each task's agreement that each block alone loses in INT8, as far as it was measured."""
        names = {block: self._name_in(self.engines[0], [block]) for block in self.setup.blocks}
        known = {
            block: self._scored.agreements[name] for block, name in names.items() if name in self._scored.agreements
        }
        return {block: {task: 1 - share for task, share in shares.items()} for block, shares in known.items()}

    def longest(self, engine: str) -> tuple[str, ...]:
        """As many blocks in INT8, from the gentlest on, as the floors allow."""
        return self._longest(engine, self.setup.floors.are_kept)

    def _longest(self, engine: str, is_enough: Callable[[Metrics], bool]) -> tuple[str, ...]:
        order = self.order

        def kept(count: int) -> bool:
            self._report(Progress("", 0, 0, f"{engine}: the {count} gentlest of {len(order)} blocks in INT8"))
            return is_enough(self._score(self.precision(engine, order[:count])))

        return tuple(order[: longest_kept(len(order), kept)])

    def _mixed(self, engine: str) -> Iterator[Candidate]:
        """As many blocks in INT8 as the floors allow, or a preference too, and fewer where some are no faster so."""
        blocks, floors = self.setup.blocks, self.setup.floors
        wanted = (floors.are_kept, *([floors.are_kept_well] if floors.are_weighted else []))
        longest = [each for each in (self._longest(engine, is_enough) for is_enough in wanted) if each]
        if not longest:
            return
        float_ms, rounded_ms = (self.setup.bench.block_ms(self.precision(engine, each)) for each in ((), blocks))
        fewer = (few for each in longest for few in worth_rounding(each, float_ms, rounded_ms))
        for number, chosen in enumerate(dict.fromkeys((*longest, *fewer)), 1):
            precision = self.precision(engine, chosen)
            if len(chosen) < len(blocks) and floors.are_kept(self._score(precision)):
                yield self.candidate(precision, f"{engine}-mixed-{number}")

    def candidate(self, precision: OwnPrecision, name: str) -> Candidate:
        """The net in a precision, scored."""
        setup = self.setup
        uniform = setup.whole and len({precision.values.get(block, FLOAT) for block in setup.blocks}) <= 1
        own_name = "-".join(part for part in (setup.name, name) if part)
        return Candidate(own_name, setup, precision, self._score(precision), uniform)

    def latency_ms(self, precision: OwnPrecision) -> Mapping[str, float]:
        """Latency of the engine in a precision, by scope, measured alone."""
        name, bench = self._name(precision), self.setup.bench
        return self._scored.latency_ms(name, lambda: medians_in_turns(bench, [precision])[0])

    def precision(self, engine: str, chosen: Sequence[str]) -> OwnPrecision:
        """An engine's precision, with those blocks in INT8 that it changes, of some."""
        eight = [block for block in self.setup.blocks if block in chosen]
        return OwnPrecision({"engine": engine, **dict.fromkeys(eight, INT8)}, self._ranges if eight else None)

    @cached_property
    def _ranges(self) -> Ranges:
        return self.setup.calibrate(self._report)

    def _score(self, precision: OwnPrecision) -> Metrics:
        if not self.setup.images.labelled:
            return by_agreement(self._agreement(precision))
        return self._scored.score(self._name(precision), lambda: self.setup.bench.scores(precision, self._report))

    def _agreement(self, precision: OwnPrecision) -> Agreements:
        return self._scored.agreement(self._name(precision), lambda: self.setup.bench.agreement(precision))

    def _name(self, precision: OwnPrecision) -> str:
        eight = [block for block, value in precision.values.items() if value == INT8]
        return self._name_in(precision.values["engine"], eight)

    def _name_in(self, engine: str, eight: Sequence[str]) -> str:
        return " ".join([self.setup.name, engine, *sorted(eight)]).strip()
