"""Depths of the FIFOs between a project's layers.

A layer passes on a row as soon as the rows that its kernel needs have come, so that a FIFO holds little, but where
paths meet again: there the shorter one waits for the longer. By default hls4ml gives every FIFO a whole image. Depths
from here are estimates of the rows that a path is behind, with two to spare; `fifo_opt` of the project, which needs the
vendor's simulator, measures them.
"""

from __future__ import annotations

from edgemtl.targets.hls.layers import INPUT, HlsNet

__all__ = ["SPARE_ROWS", "fifo_depths"]

SPARE_ROWS = 2
"""Rows that every FIFO holds, whoever waits."""


def fifo_depths(net: HlsNet) -> dict[str, int]:
    """Places of each layer's output FIFO, in pixels: at most an image."""
    delays, writers = {INPUT: 0.0}, {layer.node.output: layer for layer in net.layers}
    waits: dict[str, float] = {}
    height = net.input_size[0]
    for layer in net.layers:
        sources = [writers[name].name if name in writers else INPUT for name in layer.node.inputs]
        latest = max(delays[source] for source in sources)
        for source in sources:
            waits[source] = max(waits.get(source, 0.0), latest - delays[source])
        product = layer.product
        rows_of_image = height / layer.shape[1]  # of the input, for one row of the output
        behind = rows_of_image if product is None or product.kernel == 1 else (product.kernel // 2 + 1) * rows_of_image
        delays[layer.name] = latest + (behind if layer.node.op in ("Conv", "Resize", "GlobalAveragePool") else 0.0)
    depths = {}
    for layer in net.layers:
        _, rows, columns = layer.shape
        held = int(waits.get(layer.name, 0.0) * rows / height) + SPARE_ROWS
        depths[layer.name] = min(rows, held) * columns
    return depths
