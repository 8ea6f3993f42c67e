"""The verdict on samples: whether they are steady, and whether something disturbed the machine meanwhile."""

from __future__ import annotations

from collections.abc import Mapping

from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Stability
from edgemtl.profiling.watch import Disturbance

__all__ = ["judge_stability", "unwatched"]

UNSTABLE_COV = 0.10
UNSTABLE_DRIFT = 0.05
BUSY_FRACTION = 0.10
STOLEN_FRACTION = 0.02
MIN_HALF = 10


def judge_stability(samples: Mapping[str, Samples], seen: Disturbance) -> Stability:
    """Judge samples by themselves and by what was seen while they were drawn.

    The thresholds: a coefficient of variation above 10 % (trtexec warns at 2.5 % on a GPU; a CPU shares its cores
    with the system), medians of the first and second half more than 5 % apart, other processes above 10 % of the
    machine, or more than 2 % of it stolen by other virtual machines.
    """
    reasons = _unsteady(samples)
    if seen.throttled == "yes":
        reasons.append("the processor was throttled while it was measured: cool it or lower its power mode")
    if seen.others_cpu is not None and seen.others_cpu > BUSY_FRACTION:
        reasons.append(
            f"other processes took {seen.others_cpu:.0%} of the machine meanwhile: stop them and measure again"
        )
    if seen.stolen_cpu is not None and seen.stolen_cpu > STOLEN_FRACTION:
        reasons.append(f"other virtual machines took {seen.stolen_cpu:.0%} of this machine meanwhile")
    return Stability.model_validate(
        {
            "stable": not reasons,
            "throttled": seen.throttled,
            "worst_cov": max((each.cov for each in samples.values()), default=0.0),
            "load_average": seen.load_average,
            "others_cpu": seen.others_cpu,
            "stolen_cpu": seen.stolen_cpu,
            "reasons": reasons,
        }
    )


def unwatched(samples: Mapping[str, Samples]) -> Stability:
    """The verdict on samples of a device that nothing watched meanwhile: they are not certified."""
    reasons = [*_unsteady(samples), "nothing watched the device meanwhile: whether it throttled is not known"]
    return Stability(
        stable=False,
        throttled="unknown",
        worst_cov=max((each.cov for each in samples.values()), default=0.0),
        load_average=None,
        others_cpu=None,
        stolen_cpu=None,
        reasons=tuple(reasons),
    )


def _unsteady(samples: Mapping[str, Samples]) -> list[str]:
    """At most one line on variation and one on drift: the worst mode, and the number of modes affected."""
    cov = {name: each.cov for name, each in samples.items() if each.cov > UNSTABLE_COV}
    drift = {name: moved for name, each in samples.items() if abs(moved := _drift(each)) > UNSTABLE_DRIFT}
    reasons = []
    if cov:
        worst = max(cov, key=lambda name: cov[name])
        among = f"in {len(cov)} of {len(samples)} modes, most in {worst!r}"
        reasons.append(f"samples vary by up to {cov[worst]:.0%} of their mean (limit {UNSTABLE_COV:.0%}) {among}")
    if drift:
        worst = max(drift, key=lambda name: abs(drift[name]))
        among = f"in {len(drift)} of {len(samples)} modes, most in {worst!r}"
        reasons.append(f"the median moved by up to {drift[worst]:+.0%} from the first half to the second {among}")
    return reasons


def _drift(samples: Samples) -> float:
    """Median of the second half over the first's, minus one; 0 if there are too few samples."""
    half = len(samples.samples_ms) // 2
    if half < MIN_HALF:
        return 0.0
    first, second = (Samples(part, 0, 1).median_ms for part in (samples.samples_ms[:half], samples.samples_ms[half:]))
    return second / first - 1 if first > 0 else 0.0
