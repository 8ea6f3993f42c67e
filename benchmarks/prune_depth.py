"""How much of a net can go: FLOPs and parameters removed, and the delta_m that is lost after fine-tuning.

The net is the default space's largest, on four tasks, trained further alone for 600 steps; the pruned one is trained
for 3,000 steps, taught by it. Images are 96x128 pixels.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _prunings import QUICK_STEPS, latencies_ms, pruned, trained, unpruned

from edgemtl.nas.runs import RunFolder
from edgemtl.results import read_result

BUDGET = "39%FLOPs"
"""Parameters follow: at 40 % of the FLOPs a little over 40 % of them were left."""
STEPS, ENGINES = 3000, 6


def run(options: argparse.Namespace) -> Outcome:
    """Prune by trials (with --quick by the map) and train the result further, taught by the unpruned net."""
    path = pruned(unpruned(options.quick), "60", "--budget", BUDGET, *(["--fast"] if options.quick else []))
    tuned = trained(path, path.with_name(f"{path.name}-tuned"), QUICK_STEPS if options.quick else STEPS)
    result, before = read_result(tuned), read_result(path)
    best, base = result.best, result.baseline
    assert best is not None and base is not None and best.delta_m is not None and before.best is not None
    rows = [
        Row("flops_removed", 100 * (1 - best.flops / base.flops), "%", 60, None, False),
        Row("params_removed", 100 * (1 - best.params / base.params), "%", 60, None, False),
        Row("delta_m_lost", -100 * best.delta_m, "%", None if options.quick else 1.5),
    ]
    nets, ms = {name: RunFolder(tuned).load(name).net for name in ("baseline", "best")}, {}
    for target in ("onnxruntime", "openvino"):
        ms[target] = latencies_ms(nets, target, 1 if options.quick else ENGINES)
        rows.append(Row(f"faster_on_{target}", ms[target]["baseline"] / ms[target]["best"], "x", None, 2.0, False))
    return Outcome(
        rows,
        {"metrics": best.metrics, "unpruned": base.metrics, "delta_m_before_tuning": before.best.delta_m, "ms": ms},
    )


if __name__ == "__main__":
    main(run, __doc__)
