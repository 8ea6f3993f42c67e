from __future__ import annotations

from against_int8 import near_stock


def test_designs_within_a_point_of_the_stock_net_compete() -> None:
    assert near_stock({"stock": -0.01, "a": -0.019, "b": 0.02, "c": -0.021}) == ["a", "b"]


def test_the_nearest_competes_where_none_is_so_near() -> None:
    assert near_stock({"stock": 0.0, "a": -0.05, "b": -0.03}) == ["b"]
