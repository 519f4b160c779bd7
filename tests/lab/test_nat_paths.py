"""Which path a real call finds between every two kinds of NAT."""

from __future__ import annotations

import pytest

from calllab.errors import InvalidSetting
from calllab.lab import NatMatrix, nat_matrix
from calllab.network import NAT_KINDS
from calllab.report import plot_nat_matrix

KINDS = ("open", "full-cone", "restricted-cone", "port-restricted-cone", "address-dependent", "symmetric")

# What RFC 5128 and the field say: a hole can be punched unless the port that one end sends from is new for
# the other (its mapping depends on the destination) and the other lets in only ports that it has sent to
# itself, or has the same trouble.  Rows and columns are in the order of KINDS.
DIRECT = (
    (True, True, True, True, True, True),
    (True, True, True, True, True, True),
    (True, True, True, True, True, True),
    (True, True, True, True, False, False),
    (True, True, True, False, False, False),
    (True, True, True, False, False, False),
)


@pytest.fixture(scope="module", params=[False, True], ids=["stun", "turn"])
def matrix(request: pytest.FixtureRequest) -> NatMatrix:
    """All pairings, with STUN alone and with TURN."""
    return nat_matrix(turn=request.param, seed=1)


def test_every_kind_is_there(matrix: NatMatrix) -> None:
    """The matrix covers the open internet and all kinds of NAT that have a name."""
    assert matrix.kinds == KINDS == ("open", *NAT_KINDS)


def test_the_path_is_the_one_that_the_field_knows(matrix: NatMatrix) -> None:
    """Direct wherever a hole can be punched; else relayed if there is a TURN server, and failed if not."""
    otherwise = "relayed" if matrix.turn else "failed"
    expected = {
        (caller, callee): "direct" if DIRECT[row][column] else otherwise
        for row, caller in enumerate(KINDS)
        for column, callee in enumerate(KINDS)
    }
    assert {pairing: path.outcome for pairing, path in matrix.paths.items()} == expected


def test_the_pair_tells_how(matrix: NatMatrix) -> None:
    """Public hosts meet as they are, cones by what STUN saw, a symmetric NAT by what its packets showed."""
    assert matrix["open", "open"].pair == "host/host"
    assert matrix["full-cone", "full-cone"].pair == "host/srflx"
    assert matrix["full-cone", "symmetric"].pair == "host/prflx"
    if matrix.turn:
        assert matrix["symmetric", "symmetric"].pair == "relay/relay"


def test_connecting_takes_round_trips_not_timeouts(matrix: NatMatrix) -> None:
    """Whatever works, works within a second: nobody waits for a direct path before taking a relayed one."""
    took = [path.connected_s for path in matrix.paths.values() if path.connected_s is not None]
    assert max(took) < 1.0


def test_the_picture_names_every_pair(matrix: NatMatrix) -> None:
    """The drawing has a cell for each pairing, with the selected pair in it."""
    figure = plot_nat_matrix(matrix)
    words = [text.get_text().split("\n")[0] for text in figure.axes[0].texts]
    assert words == [matrix[caller, callee].pair for caller in KINDS for callee in KINDS]


def test_an_unknown_kind_is_refused_before_anything_runs() -> None:
    """A misspelt kind is named, with those that there are."""
    with pytest.raises(InvalidSetting, match="symetric"):
        nat_matrix(["open", "symetric"])
    with pytest.raises(InvalidSetting, match="no kind"):
        nat_matrix([])
