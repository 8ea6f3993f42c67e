from __future__ import annotations

import pytest
from ranking import MIDDLE_FLOPS, NEAR, Pool, draw_pool, nearest, rows_of

from edgemtl.data.scenes.source import SCENES_TASKS
from edgemtl.spaces import Design, Space, load_space


@pytest.fixture(scope="module")
def cnn() -> Space:
    return load_space("cnn", SCENES_TASKS)


@pytest.fixture(scope="module")
def pool(cnn: Space) -> Pool:
    return draw_pool(cnn, 6)


def test_designs_span_the_range_and_crowd_the_middle(cnn: Space, pool: Pool) -> None:
    flops = [design.cost().flops for design in pool.whole]
    assert flops == sorted(flops)
    assert (pool.whole[0], pool.whole[-1]) == (cnn.smallest(), cnn.largest())
    assert len(pool.near) == len({design.key for design in pool.near}) == len(pool.whole) == 6
    assert all(abs(design.cost().flops / MIDDLE_FLOPS - 1) <= NEAR for design in pool.near)
    assert all(set(design.precision.values()) == {"float", "fp32"} for design in (*pool.whole, *pool.near))
    assert draw_pool(cnn, 6) == pool


def test_each_design_is_taken_once(pool: Pool) -> None:
    flops = pool.near[2].cost().flops
    assert len({design.key for design in nearest(pool.near, [flops, flops])}) == 2
    assert nearest(pool.near[:1], [flops, flops]) == pool.near[:1]


def test_rows_hold_where_the_supernet_ranks_as_training_does(pool: Pool) -> None:
    def size(design: Design) -> float:
        return float(design.cost().flops)

    same = {row.name: row for row in rows_of(pool, size, size, [0.4, 0.3])}
    assert same["tau_over_the_whole_range"].value == same["tau_near_the_middle"].value == pytest.approx(1)
    assert all(row.holds for row in same.values())
    opposite = {row.name: row.holds for row in rows_of(pool, size, lambda design: -size(design), [0.4, 0.09])}
    assert not any(opposite.values())
