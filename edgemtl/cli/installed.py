"""Which optional packages are installed, found without importing them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["EXTRAS", "install_line", "is_installed", "version_of"]

EXTRAS = {
    "openvino": ("openvino", "target openvino"),
    "tensorrt-rtx": ("tensorrt-rtx", "target tensorrt-rtx"),
    "fpga": ("hls4ml", "target hls"),
    "torchjd": ("torchjd", "gradient aggregation in training"),
    "elpv": ("elpv-dataset", "data set elpv (non-commercial)"),
}
"""For each extra of the package: the distribution it installs, and what that is for."""


def version_of(distribution: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def is_installed(runtime: str) -> bool:
    """Whether a runtime's distribution, called like the runtime, is installed."""
    return version_of(runtime) is not None


def install_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'edgemtl[{extra}]'"
