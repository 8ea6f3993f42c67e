from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from edgemtl.devices import resolve
from edgemtl.errors import UserError
from edgemtl.units import (
    Budget,
    format_bytes,
    format_duration,
    format_flops,
    format_limit,
    format_quantity,
    parse_amount,
    parse_budget,
    parse_preference,
)

SCALES = {
    "FLOPs": ("flops", 1), "kFLOPs": ("flops", 1e3), "MFLOPs": ("flops", 1e6), "GFLOPs": ("flops", 1e9),
    "TFLOPs": ("flops", 1e12), "MACs": ("flops", 2), "kMACs": ("flops", 2e3), "MMACs": ("flops", 2e6),
    "GMACs": ("flops", 2e9), "TMACs": ("flops", 2e12), "us": ("latency_ms", 1e-3), "ms": ("latency_ms", 1),
    "s": ("latency_ms", 1e3), "B": ("weight_bytes", 1), "kB": ("weight_bytes", 1e3), "MB": ("weight_bytes", 1e6),
    "GB": ("weight_bytes", 1e9), "mJ": ("energy_mj", 1), "J": ("energy_mj", 1e3),
}  # fmt: skip
SHARES = {"%FLOPs": "flops", "%MACs": "flops", "%ms": "latency_ms", "%MB": "weight_bytes", "%mJ": "energy_mj"}
TASKS = ("semseg", "depth")


@settings(deadline=None)
@given(st.sampled_from(sorted(SCALES)), st.decimals(min_value="0.001", max_value=10**6, places=3))
def test_every_unit_scales_to_its_quantity(unit: str, number: object) -> None:
    quantity, scale = SCALES[unit]
    budget = parse_budget(f"{number}{unit}")
    assert budget == Budget(quantity, budget.value, f"{number}{unit}")
    assert math.isclose(budget.value, float(str(number)) * scale)
    assert budget.limit(largest=7.0) == budget.value


@pytest.mark.parametrize("text", ["2GFLOPS", "5 MB", "7parsecs", "0ms", "fast", "5mj", "5j", "5%mj", "5MJ"])
def test_no_error_offers_energy_which_nothing_measures(text: str) -> None:
    assert not re.search(r"\bm?J\b", refused(lambda: resolve(parse_budget(text))))
    assert "a search has no limits in energy" in refused(lambda: resolve(parse_budget("20mJ")))


@settings(deadline=None)
@given(st.sampled_from(sorted(SHARES)), st.integers(1, 100))
def test_a_share_is_of_the_largest_design(unit: str, number: int) -> None:
    budget = parse_budget(f"{number}{unit}")
    assert budget.quantity == SHARES[unit]
    assert budget.relative
    assert math.isclose(budget.limit(largest=5e9), number / 100 * 5e9)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("depth:1GFLOPs", ("depth", None, None)),
        ("Depth_2:1GFLOPs", ("Depth_2", None, None)),
        ("8ms@jetson-orin-nano", (None, "jetson-orin-nano", None)),
        ("8ms@host/openvino", (None, "host", "openvino")),
        ("depth:60%ms@host/tensorrt-rtx", ("depth", "host", "tensorrt-rtx")),
        (".5ms", (None, None, None)),
    ],
)
def test_scope(text: str, scope: tuple[str | None, ...]) -> None:
    budget = parse_budget(text)
    assert (budget.task, budget.device, budget.runtime) == scope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 GFLOP", "no space belongs between number and unit"),
        ("2GFLOP", "did you mean 'GFLOPs'"),
        ("2Gflops@nowhere", "did you mean 'GFLOPs'"),
        ("2GFLOPs@host", "the same on every device, drop @host"),
        ("5MB@host/openvino", "the same on every device"),
        ("-1ms", "a positive number and its unit are wanted"),
        ("+1ms", "a positive number"),
        ("0", "a positive number and its unit are wanted"),
        ("5", "a positive number and its unit are wanted"),
        ("", "a positive number and its unit are wanted"),
        ("ms", "a positive number"),
        ("1e3ms", "a positive number"),
        ("nanms", "a positive number"),
        ("infms", "a positive number"),
        ("1,5ms", "a positive number"),
        ("8ms\n", "no space belongs"),
        ("8ms@host/", "a positive number"),
        ("depth=1GFLOPs", "a positive number"),
        ("0ms", "no finite number above zero"),
        ("0.000GFLOPs", "no finite number above zero"),
        pytest.param("9" * 400 + "ms", "15 digits at most", id="beyond-floats"),
        ("60%", "does not say of what"),
        ("60%GFLOPs", "unknown unit"),
        ("5mb", "did you mean 'MB'"),
        ("5M", "did you mean MB"),
        ("5furlongs", "allowed: "),
        ("8ms@nowhere", "unknown device 'nowhere': allowed: "),
        ("8ms@hots", "did you mean host?"),
        ("8ms@host/openvin", "did you mean openvino?"),
    ],
)
def test_a_bad_budget_is_one_line_that_says_what_is_allowed(text: str, expected: str) -> None:
    line = refused(lambda: resolve(parse_budget(text)))
    assert expected in line
    allowed = ("examples: 2GFLOPs", "allowed: ", "write 60%FLOPs", "drop @", "with a FLOPs or")
    assert any(word in line for word in allowed)


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_budget_or_a_user_error(text: str) -> None:
    try:
        budget = parse_budget(text)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert 0 < budget.value < math.inf


@settings(deadline=None)
@given(st.sampled_from(["flops", "weight_bytes", "latency_ms", "energy_mj"]), st.floats(1e-3, 9.9e11))
def test_what_is_printed_reads_back_as_the_same_quantity(quantity: str, value: float) -> None:
    text = format_quantity(quantity, value).partition(" (")[0]
    number, unit = text.split(" ")
    assert "e" not in number
    assert sum(map(str.isdigit, number.lstrip("0."))) >= 3
    budget = parse_budget(number + unit)
    assert budget.quantity == quantity
    assert math.isclose(budget.value, value, rel_tol=0.0051)


@pytest.mark.parametrize(
    ("flops", "expected"),
    [
        (2e9, "2.00 GFLOPs (1.00 GMACs)"),
        (999.6e6, "1.00 GFLOPs (500 MMACs)"),
        (999.4e6, "999 MFLOPs (500 MMACs)"),
        (1234567, "1.23 MFLOPs (617 kMACs)"),
        (0, "0.00 FLOPs (0.00 MACs)"),
    ],
)
def test_flops_are_printed_with_macs(flops: float, expected: str) -> None:
    assert format_flops(flops) == expected


def test_a_limit_is_no_estimate_though_what_it_bounds_is() -> None:
    assert format_quantity("dsps", 900) == "900 DSP (estimated)" and format_limit("dsps", 900) == "900 DSP"
    assert format_limit("latency_ms", 8) == "8.00 ms"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("900DSP@zcu104", "a DSP limit is that of the search's device: add --device zcu104 and drop @zcu104"),
        ("2GFLOPs@zcu104", "a GFLOPs limit is the same on every device, drop @zcu104"),
    ],
)
def test_a_count_names_no_device(text: str, says: str) -> None:
    assert says in refused(lambda: parse_budget(text))


def test_bytes_have_decimal_prefixes() -> None:
    assert format_bytes(1_250_000) == "1.25 MB"
    assert format_bytes(999) == "999 B"


def test_a_task_without_preference_weighs_one() -> None:
    assert parse_preference("depth=2", TASKS) == {"semseg": 1.0, "depth": 2.0}
    assert parse_preference("depth=0,semseg=0.5", TASKS) == {"semseg": 0.5, "depth": 0.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("depth=0,semseg=0", "add up to a finite number above 0"),
        (f"depth={'9' * 400}", "a weight of 0 to 999999999"),
        ("depth=-1", "write TASK=WEIGHT"),
        ("depth", "write TASK=WEIGHT"),
        ("depht=2", "did you mean depth?"),
        ("depth=1,", "unknown task in preference ''"),
    ],
)
def test_a_bad_preference_says_what_is_wanted(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse_preference(text, TASKS)
    assert expected in str(error.value)


def test_digits_without_end_and_a_task_twice_are_refused_in_one_short_line() -> None:
    for parse, text, expected in (
        (parse_preference, "depth=2,depth=3", "names depth twice: give each task one weight"),
        (lambda text, tasks: parse_budget(text), f"2.{'0' * 5000}GFLOPs", "15 digits at most"),
        (lambda text, tasks: parse_budget(text), f"{'t' * 400}:2GFLOPs", "is not understood"),
    ):
        with pytest.raises(UserError, match=expected) as error:
            parse(text, ["depth", "semseg"])
        assert len(str(error.value)) < 400


def test_durations_are_told_in_the_unit_that_fits() -> None:
    assert [format_duration(seconds) for seconds in (0.5, 45.2, 119, 720, 12_600)] == [
        "0.5 s", "45 s", "119 s", "12 min", "3.5 h",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "base", "amount"),
    [
        ("8 GiB", "bytes", 8 * 2**30),
        ("1.5GB", "bytes", 1.5e9),
        ("17.1 GB/s", "bytes/s", 17.1e9),
        ("40 TOPS", "operations/s", 40e12),
        ("57.6 GFLOPS", "operations/s", 57.6e9),
        ("750 mW", "watts", 0.75),
    ],
)
def test_an_amount_is_read_with_its_unit(text: str, base: str, amount: float) -> None:
    assert parse_amount(text, base) == amount


@pytest.mark.parametrize("given", [8, 8.5, None, "8", "GiB", "8 GiB more", "-8 GiB", "1e9 B", "8  GiB", ["8 GiB"]])
def test_an_amount_without_a_number_or_a_unit_is_refused(given: object) -> None:
    with pytest.raises(UserError, match="is no amount with a unit: write, for example, 8 GiB") as caught:
        parse_amount(given, "bytes")
    assert "\n" not in str(caught.value)


def test_an_unknown_unit_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'GIB': did you mean"):
        parse_amount("40 GIB", "bytes")
