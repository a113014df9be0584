"""Session tokens of the Determined server."""

import hashlib
import hmac
import time

from hypothesis import given
from hypothesis import strategies as st

from pdk.local.determined.wire.http import Tokens

SECRET = "the installation's secret"


def signed(content):
    """What the server itself would sign."""
    return f"{content}.{hmac.new(SECRET.encode(), f'user:{content}'.encode(), hashlib.sha256).hexdigest()}"


def test_a_session_is_good_until_it_expires():
    tokens = Tokens(SECRET)
    assert tokens.is_user(tokens.user())
    assert tokens.user() != tokens.user()
    assert tokens.is_user(signed(f"{int(time.time()) + 60}.x"))
    assert not tokens.is_user(signed(f"{int(time.time()) - 1}.x"))
    assert not Tokens("another secret").is_user(tokens.user())


@given(st.text(max_size=80) | st.from_regex(r"[0-9]{10}\.[0-9a-f]{16}\.[0-9a-f]{64}"))
def test_what_nobody_signed_is_no_session(text):
    assert not Tokens(SECRET).is_user(text)


@given(st.integers(0, 200), st.characters(codec="utf-8"))
def test_a_token_that_was_changed_is_none(place, character):
    token = Tokens(SECRET).user()
    place %= len(token)
    changed = token[:place] + character + token[place + 1 :]
    assert Tokens(SECRET).is_user(changed) == (changed == token)
