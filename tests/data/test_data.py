from __future__ import annotations

import subprocess
import sys

import pytest

import edgemtl.data as data


def test_every_exported_name_is_there() -> None:
    assert data.__all__ == sorted(data.__all__, key=lambda name: (not name.isupper(), name))
    assert dir(data) == sorted(data.__all__)
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        data.nothing  # noqa: B018
    assert data.source_names() == ("elpv", "scenes")


def test_data_needs_no_torch_and_loads_its_parts_late() -> None:
    code = (
        "import sys, edgemtl.data as d; early = sorted(m for m in sys.modules if m.startswith('edgemtl.data.'));"
        "d.open_source; print(early, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] False"
