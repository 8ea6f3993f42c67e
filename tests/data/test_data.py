from __future__ import annotations

import subprocess
import sys

import edgemtl.data as data


def test_every_exported_name_is_there() -> None:
    assert data.__all__ == sorted(data.__all__, key=lambda name: (not name.isupper(), name))
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert data.source_names() == ("elpv", "scenes")


def test_data_needs_no_torch() -> None:
    code = "import sys, edgemtl.data as d; d.open_source; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
