"""The demonstration, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from calllab import Recording


@pytest.mark.timeout(200)
def test_the_demo_does_all_that_it_announces(tmp_path: Path) -> None:
    """Exit code 0, each phase with its time, findings in words, and recording and report where it says."""
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "calllab.cli", "demo", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=190,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for phase in ("glare", "lose 8%", "delay alice to bob by 120 ms", "change alice's network", "relay only"):
        assert phase in done.stdout
    assert Recording.load(out / "recording").duration_s > 40
    page = (out / "report.html").read_text()
    assert "glare" in page
    # Addresses may stand in it as text (SDP names its extensions by them), but nothing is loaded from one.
    assert re.findall(r"""(?:src|href|data)=["']?https?:|url\(["']?https?:|@import""", page) == []
