from __future__ import annotations

from importlib import metadata

import aioice.ice
import aiortc.rtcrtpreceiver
import pytest

from calllab._aiortc import selftest
from calllab.errors import UnsupportedAiortc


def test_the_installed_versions_pass() -> None:
    """What is locked is what this room was written for."""
    selftest.check()


def test_a_name_that_moved_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that is gone is found, and named, before anything uses it."""
    monkeypatch.delattr(aioice.ice.Connection, "query_consent")
    with pytest.raises(UnsupportedAiortc, match=r"aioice\.ice\.Connection\.query_consent is gone"):
        selftest.check()


def test_an_attribute_that_init_no_longer_sets_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a private attribute that the constructor does not set any more."""

    def init(self: object, kind: str, transport: object) -> None:
        self.anything = kind  # type: ignore[attr-defined]

    monkeypatch.setattr(aiortc.rtcrtpreceiver.RTCRtpReceiver, "__init__", init)
    with pytest.raises(UnsupportedAiortc, match="RTCRtpReceiver no longer sets __jitter_buffer"):
        selftest.check()


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer minor release is refused even if all names are there: their meaning may have changed."""
    monkeypatch.setattr(metadata, "version", lambda name: "1.17.0" if name == "aiortc" else "0.13.0")
    with pytest.raises(UnsupportedAiortc, match=r"needs aiortc 1\.16\.\*.*aiortc 1\.17\.0 is installed"):
        selftest.check()


def test_it_is_an_import_error() -> None:
    """Whoever imports calllab and handles ImportError gets it too."""
    assert issubclass(UnsupportedAiortc, ImportError)
