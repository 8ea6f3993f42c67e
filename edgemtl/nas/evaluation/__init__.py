"""Evaluation of designs: the problem, the evaluator, pre-flight, trials and finalists."""

from edgemtl.nas.evaluation.evaluator import (
    BATCH,
    Candidate,
    Evaluator,
    NetEvaluator,
    Prepared,
    PreparedNet,
    recalibration_images,
)
from edgemtl.nas.evaluation.finalists import (
    Finalist,
    choose,
    fast_enough,
    front_of,
    measure_finalists,
    pick_architectures,
)
from edgemtl.nas.evaluation.images import (
    prepare_images,
)
from edgemtl.nas.evaluation.preflight import (
    FloorRow,
    PreflightRow,
    check_budgets,
    keeps_all,
    limits_of,
    preflight_budgets,
    preflight_floors,
    too_tight,
)
from edgemtl.nas.evaluation.problem import (
    Evaluation,
    Limit,
    NetDesign,
    Problem,
    Requirements,
    check_floor,
    non_dominated,
    timed_scopes,
)
from edgemtl.nas.evaluation.sensitivity import (
    Sensitivity,
    find_sensitivity,
    measure_into_run,
    one_step_down,
)
from edgemtl.nas.evaluation.shrinkage import (
    shrinkage_estimate,
    standard_error,
)
from edgemtl.nas.evaluation.trials import (
    BEAT_SECONDS,
    evaluation_of,
    finished,
    open_study,
    position,
    record,
    seen_keys,
    space_distributions,
)

__all__ = [
    "BATCH",
    "BEAT_SECONDS",
    "Candidate",
    "Evaluation",
    "Evaluator",
    "Finalist",
    "FloorRow",
    "Limit",
    "NetDesign",
    "NetEvaluator",
    "PreflightRow",
    "Prepared",
    "PreparedNet",
    "Problem",
    "Requirements",
    "Sensitivity",
    "check_budgets",
    "check_floor",
    "choose",
    "evaluation_of",
    "fast_enough",
    "find_sensitivity",
    "finished",
    "front_of",
    "keeps_all",
    "limits_of",
    "measure_finalists",
    "measure_into_run",
    "non_dominated",
    "one_step_down",
    "open_study",
    "pick_architectures",
    "position",
    "preflight_budgets",
    "preflight_floors",
    "prepare_images",
    "recalibration_images",
    "record",
    "seen_keys",
    "shrinkage_estimate",
    "space_distributions",
    "standard_error",
    "timed_scopes",
    "too_tight",
]
