"""Every design that a search would export, against FP32, BF16 and uniform INT8 of its own architecture; interleaved."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial

from _common import Outcome, Row, main, say
from _runs import kept, scenes_evaluator, searched

from edgemtl.nas import Candidate
from edgemtl.profiling import compare


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
            with ExitStack() as stack:
                sessions = {"searched": stack.enter_context(evaluator.engine(candidate))}
                for key, design in uniform.items():
                    sessions[key] = stack.enter_context(evaluator.engine(Candidate(design, candidate.net, ranges)))
                calls = {
                    key: partial(session.run, evaluator.sample_image, evaluator.tasks_of(""))
                    for key, session in sessions.items()
                }
                samples = compare(calls, 4 if options.quick else 20)
            medians = {key: each.median_ms for key, each in samples.items()}
            ratio = medians.pop("searched") / min(medians.values())
            names = {key: "/".join(sorted(set(design.precision.values()))) for key, design in uniform.items()}
            raw[f"{target}/{name}"] = {
                "searched_ms": samples["searched"].median_ms,
                "uniform_ms": {names[key]: value for key, value in medians.items()},
                "ratio": ratio,
            }
            say(f"{target} {name}: {ratio:.3f}")
            worst = max(worst, ratio)
        rows.append(Row(f"worst_design_on_{target}", worst, "x", 1.02, 1.0))
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
