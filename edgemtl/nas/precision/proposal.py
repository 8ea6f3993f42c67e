"""Precisions of a net that a search proposes: each uniform one, and mixtures that keep the floors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property

from edgemtl.models.quantization import Ranges
from edgemtl.nas.evaluation import medians_in_turns
from edgemtl.nas.precision.candidates import Agreements, gentlest_first, longest_kept, worth_rounding
from edgemtl.nas.precision.finalists import Candidate, uniform_name
from edgemtl.nas.precision.floors import Metrics
from edgemtl.nas.precision.scoring import by_agreement
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.own import INT4, INT8, OwnPrecision
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
        for engine in self.engines:
            if self.setup.eight:
                yield from self._mixed(engine)
            if self.setup.four:
                yield from self._with_four(engine)

    def uniform(self) -> Iterator[Candidate]:
        """The uniform precisions, the net in float first."""
        for eight, four in dict.fromkeys(self._uniform_blocks()):
            for engine in self.engines:
                precision = self.precision(engine, eight, four)
                yield self.candidate(precision, uniform_name(precision))

    def _uniform_blocks(self) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
        """Blocks in INT8, and blocks in INT4, of a net whose blocks have one precision, as far as they can have it."""
        return ((), ()), (self.setup.eight, ()), ((), self.setup.four)

    @cached_property
    def order(self) -> list[str]:
        """Blocks, those first that lose least alone in INT8: what the preference weighs more counts more."""
        alone = {block: self.precision(self.engines[0], (block,)) for block in self.setup.eight}
        return self._gentlest_first(alone, "precision")

    @cached_property
    def _order_of_four(self) -> list[str]:
        """Blocks, those first that lose least alone in INT4."""
        alone = {block: self.precision(self.engines[0], (), (block,)) for block in self.setup.four}
        return self._gentlest_first(alone, "weights")

    def _gentlest_first(self, precisions: Mapping[str, OwnPrecision], stage: str) -> list[str]:
        alone = dict[str, Agreements]()
        for number, (block, precision) in enumerate(precisions.items()):
            self._report(Progress(stage, number, len(precisions), block))
            alone[block] = self._agreement(precision)
        self._report(Progress(stage, len(precisions), len(precisions)))
        return gentlest_first(alone, self.setup.floors.weighted_drops)

    @property
    def block_losses(self) -> dict[str, dict[str, float]]:
        """The share of each task's agreement that each block alone loses in INT8, as far as it was measured."""
        names = {block: self._name_in(self.engines[0], [block]) for block in self.setup.eight}
        known = {
            block: self._scored.agreements[name] for block, name in names.items() if name in self._scored.agreements
        }
        return {block: {task: 1 - share for task, share in shares.items()} for block, shares in known.items()}

    def longest(self, engine: str) -> tuple[str, ...]:
        """As many blocks in INT8, from the gentlest on, as the floors allow."""
        return self._longest(engine, self.setup.floors.are_kept)

    def _longest(self, engine: str, is_enough: Callable[[Metrics], bool]) -> tuple[str, ...]:
        return self._prefix(self.order, lambda eight: self.precision(engine, eight), is_enough, f"{engine}, INT8")

    def _prefix(
        self,
        order: Sequence[str],
        precision_of: Callable[[Sequence[str]], OwnPrecision],
        is_enough: Callable[[Metrics], bool],
        words: str,
    ) -> tuple[str, ...]:
        """As many of the blocks in an order, from the first on, as are enough in the precision that they then have."""

        def kept(count: int) -> bool:
            self._report(Progress("", 0, 0, f"{words}: the {count} gentlest of {len(order)} blocks"))
            return is_enough(self._score(precision_of(order[:count])))

        return tuple(order[: longest_kept(len(order), kept)])

    def _mixed(self, engine: str) -> Iterator[Candidate]:
        """As many blocks in INT8 as the floors allow, or a preference too, and fewer where some are no faster so."""
        blocks, floors = self.setup.eight, self.setup.floors
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

    def _with_four(self, engine: str) -> Iterator[Candidate]:
        """As many blocks in INT4 as the floors allow; the others in float, or as many in INT8 as they allow then."""
        floors, setup = self.setup.floors, self.setup
        wanted = floors.are_kept_well if floors.are_weighted else floors.are_kept
        four = self._prefix(
            self._order_of_four, lambda some: self.precision(engine, (), some), wanted, f"{engine}, INT4"
        )
        if not four:
            return
        if len(four) < len(setup.four):
            yield self.candidate(self.precision(engine, (), four), f"{engine}-int4")
        others = [block for block in self.order if block not in four] if setup.eight else []
        if not others:
            return
        eight = self._prefix(
            others, lambda some: self.precision(engine, some, four), wanted, f"{engine}, INT4 and INT8"
        )
        if eight:
            yield self.candidate(self.precision(engine, eight, four), f"{engine}-int4-int8")

    def candidate(self, precision: OwnPrecision, name: str) -> Candidate:
        """The net in a precision, scored."""
        setup, engine = self.setup, precision.values["engine"]
        alike = [self._values(engine, eight, four) for eight, four in self._uniform_blocks()]
        own_name = "-".join(part for part in (setup.name, name) if part)
        return Candidate(own_name, setup, precision, self._score(precision), setup.whole and precision.values in alike)

    def latency_ms(self, precision: OwnPrecision) -> Mapping[str, float]:
        """Latency of the engine in a precision, by scope, measured alone."""
        name, bench = self._name(precision), self.setup.bench
        return self._scored.latency_ms(name, lambda: medians_in_turns(bench, [precision])[0])

    def precision(self, engine: str, eight: Collection[str], four: Collection[str] = ()) -> OwnPrecision:
        """An engine's precision, with those of some blocks in INT8, and of others in INT4, that these change."""
        values = self._values(engine, eight, four)
        return OwnPrecision(values, self._ranges if INT8 in values.values() else None)

    def _values(self, engine: str, eight: Collection[str], four: Collection[str]) -> dict[str, str]:
        rounded = {block: INT8 for block in self.setup.eight if block in eight}
        rounded |= {block: INT4 for block in self.setup.four if block in four}
        return {"engine": engine, **rounded}

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
        eight, four = ([block for block, kind in precision.values.items() if kind == each] for each in (INT8, INT4))
        return self._name_in(precision.values["engine"], eight, four)

    def _name_in(self, engine: str, eight: Sequence[str], four: Sequence[str] = ()) -> str:
        parts = [self.setup.name, engine, *sorted(eight), *(f"{block}:{INT4}" for block in sorted(four))]
        return " ".join(parts).strip()
