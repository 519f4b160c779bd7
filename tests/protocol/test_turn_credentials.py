from __future__ import annotations

import base64
import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calllab.protocol.turn_credentials import (
    expiry_of,
    make_credentials,
    password_for,
    user_of,
    verify_credentials,
)

NOW = 1_800_000_000.7
URIS = ("turn:127.0.0.1:3478?transport=udp",)


def test_credentials_follow_the_rest_scheme() -> None:
    """The username carries the expiry, and the password is the base64 of its HMAC-SHA1."""
    credentials = make_credentials("secret", "alice", now=NOW, ttl=600, uris=URIS)
    assert credentials.username == "1800000600:alice"
    digest = hmac.new(b"secret", b"1800000600:alice", hashlib.sha1).digest()
    assert credentials.password == base64.b64encode(digest).decode()
    assert (credentials.ttl, credentials.uris) == (600, URIS)


def test_json_is_the_answer_of_the_service() -> None:
    """The JSON has exactly the four members that clients know."""
    credentials = make_credentials("secret", "alice", now=NOW, ttl=600, uris=URIS)
    decoded = msgspec.json.decode(msgspec.json.encode(credentials))
    assert list(decoded) == ["username", "password", "ttl", "uris"]
    assert msgspec.convert(decoded, type(credentials)) == credentials


def test_repr_hides_the_password() -> None:
    """A credential in a log or a traceback gives nothing away."""
    credentials = make_credentials("secret", "alice", now=NOW, ttl=600, uris=URIS)
    assert credentials.password not in repr(credentials)
    assert "alice" in repr(credentials)


@pytest.mark.parametrize(
    ("secret", "user", "ttl", "word"),
    [
        ("", "alice", 60, "secret"),
        ("s", "", 60, "user_id"),
        ("s", "alice", 0, "ttl"),
        ("s", "alice", -1, "ttl"),
    ],
)
def test_unusable_arguments_are_refused(secret: str, user: str, ttl: int, word: str) -> None:
    """Credentials without secret, user or lifetime are not made."""
    with pytest.raises(ValueError, match=word):
        make_credentials(secret, user, now=NOW, ttl=ttl, uris=URIS)


def test_verification_tells_wrong_from_expired() -> None:
    """Only who knows the secret learns that credentials have expired."""
    made = make_credentials("secret", "alice", now=NOW, ttl=600, uris=URIS)
    check = verify_credentials
    assert check("secret", made.username, made.password, now=NOW) == "valid"
    assert check("secret", made.username, made.password, now=1_800_000_599.9) == "valid"
    assert check("secret", made.username, made.password, now=1_800_000_600.0) == "expired"
    assert check("other", made.username, made.password, now=NOW) == "wrong"
    assert check("other", made.username, made.password, now=NOW + 1000) == "wrong"
    assert check("secret", made.username, made.password[:-1], now=NOW) == "wrong"


def test_a_later_expiry_needs_another_password() -> None:
    """The expiry cannot be moved by the one who was given it."""
    made = make_credentials("secret", "alice", now=NOW, ttl=600, uris=URIS)
    later = made.username.replace("1800000600", "1900000600")
    assert verify_credentials("secret", later, made.password, now=NOW) == "wrong"


def test_a_username_without_expiry_is_never_valid() -> None:
    """A signature alone does not make credentials that last for ever."""
    assert verify_credentials("secret", "alice", password_for("secret", "alice"), now=NOW) == "wrong"


@pytest.mark.parametrize(
    ("username", "expiry", "user"),
    [
        ("1800000600:alice", 1_800_000_600.0, "alice"),
        ("0:alice", 0.0, "alice"),
        ("1:a:b", 1.0, "a:b"),
        ("alice", None, "alice"),
        ("alice:1800000600", None, "alice:1800000600"),
        ("-5:alice", None, "-5:alice"),
        ("1e9:alice", None, "1e9:alice"),
        ("٣:alice", None, "٣:alice"),
        ("1800000600:", None, "1800000600:"),
        ("9" * 5000 + ":alice", None, "9" * 5000 + ":alice"),
        ("", None, ""),
    ],
)
def test_usernames_are_taken_apart(username: str, expiry: float | None, user: str) -> None:
    """Expiry and user are read from the username, and only from one of the right form."""
    assert expiry_of(username) == expiry
    assert user_of(username) == user


@given(st.text(), st.text(), st.floats(allow_nan=False, allow_infinity=False))
def test_anything_can_be_verified(username: str, password: str, now: float) -> None:
    """Verification answers "wrong" to whatever it cannot know, and never raises."""
    assert verify_credentials("secret", username, password, now=now) == "wrong"
    assert verify_credentials("secret", "\ud800", "\ud800", now=now) == "wrong"
