"""The explorer's peer without IO, made from a seed."""

from __future__ import annotations

from calllab.lab.explorer import ScriptedPeer as ExploredPeer
from calllab.negotiation.negotiator import PerfectNegotiator
from calllab.rtc.jsep import JsepCore
from tests.rtc.helpers import make_core


class ScriptedPeer(ExploredPeer[JsepCore]):
    """One end, polite or not, with two candidates in each ICE generation."""

    def __init__(self, seed: int, polite: bool) -> None:
        super().__init__(make_core(seed), PerfectNegotiator(polite), candidates=2)
        self.tracks = 0
