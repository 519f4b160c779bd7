"""The settings: what is refused, and what the sentence says."""

from __future__ import annotations

from typing import Any

import pytest

from calllab_server.config import ServiceConfig, is_loopback
from calllab_server.errors import ConfigurationError

SECRETS = {"jwt_secret": "j" * 32, "turn_secret": "t" * 32}
PUBLIC = {**SECRETS, "host": "192.0.2.7", "invite": "friends only"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("203.0.113.9", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    """Wildcards and private addresses can be reached by others; only loopback cannot."""
    assert is_loopback(host) is expected


def test_laboratories_draw_their_own_secrets() -> None:
    """On loopback nothing has to be set, and no two services share a secret."""
    one, other = (ServiceConfig.assemble(jwt_secret=None, turn_secret=None) for _ in range(2))
    assert one.on_loopback
    assert len({one.jwt_secret, one.turn_secret, other.jwt_secret, other.turn_secret}) == 4


def test_a_public_service_names_all_that_is_missing() -> None:
    """Off loopback the service refuses to start, and one sentence names every variable to set."""
    with pytest.raises(ConfigurationError) as refusal:
        ServiceConfig.assemble(jwt_secret=None, turn_secret="t" * 32, host="192.0.2.7")
    assert "CALLLAB_JWT_SECRET and CALLLAB_INVITE are not set" in str(refusal.value)
    assert "CALLLAB_TURN_SECRET" not in str(refusal.value)


def test_a_public_service_with_everything_set() -> None:
    """Off loopback a service whose secrets and invite are set may start."""
    assert not ServiceConfig(**PUBLIC).on_loopback


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"jwt_secret": "short"}, "CALLLAB_JWT_SECRET has 5 characters"),
        ({"turn_secret": ""}, "CALLLAB_TURN_SECRET has 0 characters"),
        ({"invite": "abc"}, "CALLLAB_INVITE has 3 characters"),
        ({"port": 65536}, "port is 65536"),
        ({"turn_port": -1}, "turn_port is -1"),
        ({"access_ttl_s": 0}, "access_ttl_s is 0"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"allowed_origins": frozenset({"*"})}, "'\\*' in CALLLAB_ALLOWED_ORIGINS"),
        ({"allowed_origins": frozenset({"https://a.example/path"})}, "is not an origin"),
        ({"turn_external_ip": "my router"}, "'my router'"),
        ({"turn_relay_ports": (60000, 50000)}, "60000-50000"),
        ({"turn_relay_ports": (80, 90)}, "80-90"),
        ({**PUBLIC, "invite": None}, "CALLLAB_INVITE is not set"),
        ({**PUBLIC, "host": "0.0.0.0"}, "CALLLAB_TURN_EXTERNAL_IP"),
    ],
)
def test_refused_settings(settings: dict[str, Any], named: str) -> None:
    """Each unsafe or impossible setting is refused by its name and value."""
    with pytest.raises(ConfigurationError, match=named):
        ServiceConfig(**{**SECRETS, **settings})


def test_secrets_stay_out_of_the_repr() -> None:
    """Printing the settings shows no secret."""
    config = ServiceConfig(**PUBLIC, metrics_token="for the watchers")
    for secret in (*SECRETS.values(), "friends only", "for the watchers"):
        assert secret not in repr(config)
