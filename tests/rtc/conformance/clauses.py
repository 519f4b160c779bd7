"""Which clause of which specification a test proves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

DOCUMENTS: Final = {
    "webrtc-pc": "W3C WebRTC: Real-Time Communication in Browsers",
    "mediacapture-streams": "W3C Media Capture and Streams",
    "webrtc-stats": "W3C Identifiers for WebRTC's Statistics API",
    "RFC 9429": "JavaScript Session Establishment Protocol (JSEP)",
    "RFC 9143": "Negotiating Media Multiplexing Using SDP (BUNDLE)",
    "RFC 8445": "Interactive Connectivity Establishment (ICE)",
    "RFC 8838": "Trickle ICE",
    "RFC 8839": "SDP Offer/Answer Procedures for ICE",
    "RFC 8830": "WebRTC MediaStream Identification in SDP",
    "RFC 8831": "WebRTC Data Channels",
    "RFC 8832": "WebRTC Data Channel Establishment Protocol",
    "RFC 8841": "SDP Offer/Answer Procedures for SCTP over DTLS",
    "RFC 8842": "SDP Offer/Answer Considerations for DTLS",
}
"""The documents that clauses may be of, in the order of the page."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One clause: the section's number, and what of it is meant, in our words."""

    section: str
    what: str
    document: str = "webrtc-pc"

    def __post_init__(self) -> None:
        if self.document not in DOCUMENTS:
            raise ValueError(f"{self.document!r} is not in DOCUMENTS: name it there first")
        if not all(part.isdigit() for part in self.section.split(".")):
            raise ValueError(f"a section is numbers with dots between them, not {self.section!r}")

    @property
    def place(self) -> tuple[int, tuple[int, ...], str]:
        """The order of the page: by document, section, and then what it says."""
        numbers = tuple(int(part) for part in self.section.split("."))
        return list(DOCUMENTS).index(self.document), numbers, self.what


@dataclass(frozen=True, slots=True)
class Proof:
    """A clause and the test that proves it."""

    clause: Clause
    module: str
    test: str
    says: str
    """The first sentence of the test."""


def clause(section: str, what: str, *, document: str = "webrtc-pc") -> Callable[[Test], Test]:
    """Say that the decorated test proves a clause; a test may prove several."""
    stated = Clause(section, what, document)

    def mark(test: Test) -> Test:
        test.__dict__["clauses"] = (stated, *test.__dict__.get("clauses", ()))
        return test

    return mark


def proofs() -> list[Proof]:
    """Return all clauses that the modules of this package prove, in the order of the page."""
    package = importlib.import_module(__package__ or "")
    found: list[Proof] = []
    for entry in pkgutil.iter_modules(package.__path__):
        if entry.name.startswith("test_"):
            found += _of_module(f"{package.__name__}.{entry.name}")
    return sorted(found, key=lambda proof: (proof.clause.place, proof.module, proof.test))


def _of_module(name: str) -> Iterator[Proof]:
    module = importlib.import_module(name)
    for test_name, test in inspect.getmembers(module, inspect.isfunction):
        if test_name.startswith("test_") and test.__module__ == name:
            says = (inspect.getdoc(test) or "").split("\n\n")[0].replace("\n", " ")
            for stated in getattr(test, "clauses", ()):
                yield Proof(stated, name.rpartition(".")[2], test_name, says)
