from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import asyncio, os, subprocess
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    from tests._aiortc.helpers import ice_pair

    async def main() -> None:
        async with ice_pair() as pair:
            pair.negotiate()
            await pair.connected()
            for side in (pair.alice, pair.bob):
                lines = [line for line in side.candidates[side.credentials.ufrag] if line]
                assert len(lines) == 1 and " 127.0.0.1 " in lines[0], lines
            print("connected over", pair.alice.ice.selected_pair.local.address)

    asyncio.run(main())
    """
)


@pytest.mark.namespace
def test_loopback_is_gathered_where_there_is_nothing_else() -> None:
    """In a network namespace that has only ``lo`` two agents connect over 127.0.0.1."""
    probe = subprocess.run(["unshare", "-rn", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"NOT TESTED: this machine does not allow network namespaces ({probe.stderr.strip()})")
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "connected over 127.0.0.1"
