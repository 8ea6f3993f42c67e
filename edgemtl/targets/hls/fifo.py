"""Depths of the FIFOs between a project's layers.

By default hls4ml gives every FIFO a whole image. A layer passes on a pixel as soon as the rows that its kernel needs
have come, so that a FIFO holds next to nothing but where paths meet again: there the shorter one waits for the longer,
for an estimated number of rows and two to spare. C simulation holds these depths against what the layers wait for
(`edgemtl.targets.hls.csim`); `fifo_opt` of the project, which needs the vendor's simulator, measures them.
"""

from __future__ import annotations

from dataclasses import replace

from edgemtl.targets.hls.layers import HlsNet
from edgemtl.targets.hls.resources import CHAIN_DEPTH, INPUT, Product

__all__ = ["fifo_depths", "padding_depth", "with_fifos"]

SPARE_ROWS = 2
"""Rows that a FIFO holds besides those that its path is estimated to be behind."""


def fifo_depths(net: HlsNet) -> dict[str, int]:
    """Places of each layer's output FIFO, in pixels: at most an image."""
    waits = _waits(net)
    depths = {}
    for layer in net.layers:
        _, rows, columns = layer.shape
        held = int(waits.get(layer.name, 0.0) * rows / net.input_size[0]) + SPARE_ROWS
        depths[layer.name] = min(rows, held) * columns if layer.name in waits else CHAIN_DEPTH
    return depths


def _waits(net: HlsNet) -> dict[str, float]:
    """Rows of the net's input that the output of a layer waits for, where it does."""
    delays, writers = {INPUT: 0.0}, {layer.node.output: layer for layer in net.layers}
    waits: dict[str, float] = {}
    height = net.input_size[0]
    for layer in net.layers:
        sources = [writers[name].name if name in writers else INPUT for name in layer.node.inputs]
        latest = max(delays[source] for source in sources)
        for source in sources if len(sources) > 1 else ():
            waits[source] = max(waits.get(source, 0.0), latest - delays[source])
        product = layer.product
        rows_of_image = height / layer.shape[1]  # of the input, for one row of the output
        behind = rows_of_image if product is None or product.kernel == 1 else (product.kernel // 2 + 1) * rows_of_image
        delays[layer.name] = latest + (behind if layer.node.op in ("Conv", "Resize", "GlobalAveragePool") else 0.0)
    return waits


def padding_depth(product: Product) -> int:
    """Places of the FIFO between the padding of a convolution and itself.

    One that strides reads every other row at once and the rows between more slowly: the FIFO holds a row, lest it hold
    up what comes before.
    """
    return CHAIN_DEPTH if product.stride == 1 else product.width * product.stride


def with_fifos(net: HlsNet) -> list[Product]:
    """The net's layers that multiply, each with the depth of its FIFO."""
    depths = fifo_depths(net)
    return [replace(product, fifo_depth=depths[product.name]) for product in net.products]
