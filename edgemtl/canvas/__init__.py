"""Pictures of pixels: colours, maps drawn at an image's size, text, legends, and pictures side by side."""

from edgemtl.canvas.colors import as_bytes, class_colors, ember, heat, rainbow
from edgemtl.canvas.layout import PAPER, Color, label, scale_bar, scaled, side_by_side, stacked, swatches, tag
from edgemtl.canvas.maps import Picture, Range, labels_at, robust_range, values_at, with_text

__all__ = [
    "PAPER",
    "Color",
    "Picture",
    "Range",
    "as_bytes",
    "class_colors",
    "ember",
    "heat",
    "label",
    "labels_at",
    "rainbow",
    "robust_range",
    "scale_bar",
    "scaled",
    "side_by_side",
    "stacked",
    "swatches",
    "tag",
    "values_at",
    "with_text",
]
