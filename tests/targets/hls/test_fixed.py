from __future__ import annotations

import numpy as np

from edgemtl.targets.hls.fixed import Format, fitting, narrow


def test_values_are_rounded_to_the_nearest_and_halves_up() -> None:
    assert Format(8, 2).integers([0.124, 0.125, -0.125, -0.126, 1.0]).tolist() == [0, 1, 0, -1, 4]


def test_values_beyond_the_range_saturate() -> None:
    assert Format(8, 2).integers([31.75, 32.0, -32.0, -99.0, -np.inf]).tolist() == [127, 127, -128, -128, -128]


def test_a_format_holds_the_largest_value_with_the_most_places() -> None:
    for largest in (0.0721, 0.5, 1.0, 3.7, 127.99, 1e-12):
        chosen = fitting(16, [np.array([-largest / 2, largest])])
        within = 2**15 - 1 - largest * 2.0**chosen.fraction
        assert within >= 0
        assert chosen.fraction == 30 or largest * 2.0 ** (chosen.fraction + 1) > 2**15 - 1


def test_narrowing_rounds_halves_up_on_both_sides_of_zero() -> None:
    assert narrow(np.array([5, 6, 7, -5, -6, -7, 4096, -4096]), 2, 8).tolist() == [1, 2, 2, -1, -1, -2, 127, -128]
