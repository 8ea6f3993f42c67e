"""Every design that a search would export, against FP32, BF16 and uniform INT8 of its own architecture; interleaved.

Engines of one file differ in speed for as long as they live, by up to a tenth; each figure is the median over several
engines, which are timed in turns.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main, say
from _runs import kept, scenes_evaluator, searched

from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.evaluation.finalists import timed_together

ENGINES = 10


def run(options: argparse.Namespace) -> Outcome:
    """The worst ratio to the fastest uniform precision, for each runtime's own search."""
    rows, raw = [], {}
    for target in ("onnxruntime", "openvino"):
        arguments = ["--evaluations", "12"] if options.quick else []
        name = "quick" if options.quick else "first"  # for ONNX Runtime, the run that other benchmarks search too
        name = name if target == "onnxruntime" else f"{name}-{target}"
        folder = searched(name, "--budget", "2GFLOPs", "--target", target, *arguments)
        space, evaluator = scenes_evaluator(target)
        worst = 0.0
        for name, candidate in kept(folder).items():
            uniform = {design.key: design for design in space.uniform(candidate.design)}
            ranges = candidate.ranges or evaluator.ranges(candidate.net)
            designs = {**uniform, candidate.design.key: candidate.design}  # it may be a uniform one itself
            candidates = [Candidate(design, candidate.net, ranges) for design in designs.values()]
            found = timed_together(evaluator, candidates, 2 if options.quick else ENGINES)
            medians = dict(zip(designs, (ms[""] for ms in found), strict=True))
            searched_ms = medians[candidate.design.key]
            ratio = searched_ms / min(medians[key] for key in uniform)
            names = {key: "/".join(sorted(set(design.precision.values()))) for key, design in uniform.items()}
            raw[f"{target}/{name}"] = {
                "searched_ms": searched_ms,
                "uniform_ms": {names[key]: medians[key] for key in uniform},
                "ratio": ratio,
            }
            say(f"{target} {name}: {ratio:.3f}")
            worst = max(worst, ratio)
        rows.append(Row(f"worst_design_on_{target}", worst, "x", 1.02, 1.0))
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
