"""Keys, tokens and statements: what is believed, and what is not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from swarmrt.errors import AccessError
from swarmrt.ids import MicrobatchId, PeerId, RunId
from swarmrt.trust import paseto
from swarmrt.trust.checking import CLOCK_SLACK_S, Checker, check
from swarmrt.trust.joining_line import JoinLine, parse_join_line
from swarmrt.trust.keys import (
    fingerprint,
    load_owner_key,
    open_owner_key,
    private_key_of,
    public_bytes,
    write_owner_key,
)
from swarmrt.trust.papers import GuestsPapers, OwnersPapers
from swarmrt.trust.sealing import TAG_BYTES, seal, targets_key, unseal
from swarmrt.trust.signing import Signer
from swarmrt.trust.statements import Membership, Published

OWNER, OTHER = (private_key_of(bytes([n]) * 32) for n in (1, 2))
A, B = PeerId("QmA"), PeerId("QmB")
NOW = 1_800_000_000.0

# https://github.com/paseto-standard/test-vectors, v4.json, "4-S-1" and "4-S-2"
VECTOR_KEY = "b4cbfb43df4ce210727d953e4a713307fa19bb7d9f85041438d9e11b942a3774"
VECTOR_MESSAGE = b'{"data":"this is a signed message","exp":"2022-01-01T00:00:00+00:00"}'
VECTOR_1 = (
    "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMC"
    "swMDowMCJ9bg_XBBzds8lTZShVlwwKSgeKpLT3yukTw6JUz3W4h_ExsQV-P0V54zemZDcAxFaSeef1QlXEFtkqxT1ciiQ"
    "EDA"
)
VECTOR_2 = (
    "v4.public.eyJkYXRhIjoidGhpcyBpcyBhIHNpZ25lZCBtZXNzYWdlIiwiZXhwIjoiMjAyMi0wMS0wMVQwMDowMDowMC"
    "swMDowMCJ9v3Jt8mx_TdM2ceTGoqwrh4yDFn0XsHvvV_D0DtwQxVrJEBMl0F2caAdgnpKlt4p7xBnx1HcO-SPo8FPp214H"
    "Dw.eyJraWQiOiJ6VmhNaVBCUDlmUmYyc25FY1Q3Z0ZUaW9lQTlDT2NOeTlEZmdMMVc2MGhhTiJ9"
)
VECTOR_FOOTER = b'{"kid":"zVhMiPBP9fRf2snEcT7gFTioeA9COcNy9DfgL1W60haN"}'


def signer(name: str = "run", key: Ed25519PrivateKey = OWNER) -> Signer:
    return Signer(name, key)


def test_tokens_are_those_of_the_standard() -> None:
    key = private_key_of(bytes.fromhex(VECTOR_KEY))
    assert paseto.sign(key, VECTOR_MESSAGE) == VECTOR_1
    assert paseto.sign(key, VECTOR_MESSAGE, VECTOR_FOOTER) == VECTOR_2
    assert paseto.verify(VECTOR_2, key.public_key()) == VECTOR_MESSAGE
    assert paseto.footer_of(VECTOR_2) == VECTOR_FOOTER


@given(st.data())
def test_no_change_of_a_token_is_believed(data: st.DataObject) -> None:
    token = signer().membership(A, (1,), NOW + 60)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda c: c != token[at]))
    with pytest.raises(AccessError):
        Checker(signer().run).credential(token[:at] + other + token[at + 1 :], A, NOW)


@given(st.text())
def test_nonsense_is_no_statement_and_no_line(text: str) -> None:
    for nonsense in (text, f"v4.public.{text}"):
        with pytest.raises(AccessError):
            Checker(signer().run).credential(nonsense, A, NOW)
    for nonsense in (text, f"swarmrt:{text}"):
        with pytest.raises(AccessError):
            parse_join_line(nonsense)


def test_membership_is_of_one_peer_one_run_one_owner_and_one_time() -> None:
    checker, token = Checker(signer().run), signer().membership(A, (1, 2), NOW)
    assert checker.credential(token, A, NOW).stages == (1, 2)
    checker.credential(token, A, NOW + CLOCK_SLACK_S)  # clocks differ
    with pytest.raises(AccessError, match="has ended"):
        checker.credential(token, A, NOW + CLOCK_SLACK_S + 1)
    with pytest.raises(AccessError, match="was shown by"):
        checker.credential(token, B, NOW)
    for other in (signer("another"), signer(key=OTHER)):
        with pytest.raises(AccessError, match="is about run"):
            checker.credential(other.membership(A, (1,), NOW), A, NOW)


def test_who_signs_for_another_owners_run_is_not_believed() -> None:
    liar = signer(key=OTHER)
    liar.run = RunId("run", fingerprint(OWNER.public_key()))
    with pytest.raises(AccessError, match="is not by its owner"):
        Checker(signer().run).credential(liar.membership(A, (1,), NOW), A, NOW)


def test_pass_needs_the_secret_of_the_invitation() -> None:
    checker, invite = Checker(signer().run), signer().invite(3, NOW + 60, (1,), "alice")
    shown = checker.credential(invite.pass_for(signer().run, A, NOW), A, NOW)
    assert shown.invitation is not None and shown.invitation.uses == 3
    assert shown.stages == () and shown.until == NOW + 60  # no longer than the invitation
    with pytest.raises(AccessError, match="was shown by"):
        checker.credential(invite.pass_for(signer().run, A, NOW), B, NOW)
    with pytest.raises(AccessError):
        checker.credential(invite.token, A, NOW)
    stolen = type(invite)(invite.token, OTHER)
    with pytest.raises(AccessError, match="signature"):
        checker.credential(stolen.pass_for(signer().run, A, NOW), A, NOW)


def test_pass_whose_invitation_is_no_text_is_none() -> None:
    token = paseto.sign(OTHER, b"{}", b"v4.public.\xff")
    with pytest.raises(AccessError):
        Checker(signer().run).credential(token, A, NOW)


def test_delegate_signs_for_the_owner_until_it_ends() -> None:
    checker = Checker(signer().run)
    given_key = public_bytes(OTHER.public_key())
    delegation = signer().delegate(given_key, NOW + 100)
    delegate = Signer("run", OTHER, delegation)
    assert delegate.run == signer().run
    assert checker.credential(delegate.helm(A, NOW + 50), A, NOW).is_trainer
    assert checker.credential(delegate.helm(A, NOW + 200), A, NOW).until == NOW + 100
    delegate._good_until = NOW + 300  # a dishonest one
    with pytest.raises(AccessError, match="outlives"):
        checker.credential(delegate.helm(A, NOW + 200), A, NOW)
    with pytest.raises(AccessError, match="cannot delegate further"):
        delegate.delegate(given_key, NOW)
    with pytest.raises(AccessError, match="for another key"):
        Signer("run", private_key_of(bytes([3]) * 32), delegation)
    with pytest.raises(AccessError, match="is for run"):
        Signer("another", OTHER, delegation)
    for_all = signer("*").delegate(given_key, NOW + 100)
    assert Signer("another", OTHER, for_all).run == signer("another").run


def test_owner_key_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "owner"
    made = open_owner_key(path)
    assert path.stat().st_mode & 0o077 == 0 and len(list(path.parent.iterdir())) == 1
    assert public_bytes(load_owner_key(path).public_key()) == public_bytes(made.public_key())
    with pytest.raises(FileExistsError):
        write_owner_key(path, OTHER)
    path.write_text("nonsense")
    with pytest.raises(AccessError, match="is not an Ed25519 key"):
        open_owner_key(path)


def test_join_line_has_all_that_a_newcomer_needs() -> None:
    invite = signer().invite(1, NOW + 60)
    at = ("/ip4/1.2.3.4/tcp/7000/p2p/QmX", "/ip6/::1/tcp/1/p2p/QmY")
    line = parse_join_line(str(JoinLine(signer().run, at, invite)))
    assert (line.run, line.addresses) == (signer().run, at)
    assert line.invite is not None
    Checker(line.run).credential(line.invite.pass_for(line.run, A, NOW), A, NOW)
    first = line.with_addresses(["/ip4/5.6.7.8/tcp/1/p2p/QmZ", at[1]]).addresses
    assert first == ("/ip4/5.6.7.8/tcp/1/p2p/QmZ", at[1], at[0])
    assert parse_join_line(str(JoinLine(signer().run, ()))).invite is None


def test_guest_shows_a_membership_as_soon_as_it_has_one() -> None:
    now = time.time()
    papers = GuestsPapers(JoinLine(signer().run, (), signer().invite(1, now + 600)))
    checker = Checker(signer().run)
    assert checker.credential(papers.show(A, now), A, now).invitation is not None
    papers.membership = signer().membership(A, (0,), now + 60)
    assert checker.credential(papers.show(A, now), A, now).stages == (0,)
    assert not papers.is_member(B, now) and papers.is_member(A, now)
    ended = now + 300
    assert checker.credential(papers.show(A, ended), A, ended).invitation is not None


def test_kept_membership_is_shown_only_where_there_is_no_good_invitation() -> None:
    """The run may have been begun anew since then, by somebody who does not know it."""
    now = time.time()
    kept = signer().membership(A, (0,), now + 600)
    good = JoinLine(signer().run, (), signer().invite(1, now + 600))
    ended = JoinLine(signer().run, (), signer().invite(1, now - 600))
    checker = Checker(signer().run)
    assert checker.credential(GuestsPapers(good, kept).show(A, now), A, now).invitation
    for line in (ended, JoinLine(signer().run, ())):
        assert checker.credential(GuestsPapers(line, kept).show(A, now), A, now).stages == (0,)


def test_owners_processes_renew_what_they_show() -> None:
    trainer = OwnersPapers(signer(), is_trainer=True)
    first = trainer.show(A, NOW)
    assert trainer.show(A, NOW + 60) == first != trainer.show(A, NOW + 3500)
    node = OwnersPapers(signer(), is_trainer=False)
    shown = Checker(signer().run).credential(node.show(A, NOW), A, NOW)
    assert not shown.is_trainer and shown.stages == ()


def test_runs_record_is_the_owners_and_its_trainers() -> None:
    token = signer().published(A, 3, {"run": {"steps": 3}}, ["/ip4/1.2.3.4/tcp/1"], [], NOW)
    checker = Checker(signer().run)
    assert checker.published(token, A).epoch == 3
    with pytest.raises(AccessError, match="was stored by"):
        checker.published(token, B)
    with pytest.raises(AccessError, match="not Membership"):
        check(token, signer().run, Membership)
    with pytest.raises(AccessError):
        check(signer().helm(A, NOW), signer().run, Published)


def test_targets_are_opened_by_their_key_alone() -> None:
    key = targets_key(signer(), b"data")
    mb, text = MicrobatchId(3, 5), b"secret text"
    sealed = seal(key, mb, text)
    assert seal(key, mb, text) == sealed and len(sealed) == len(text) + TAG_BYTES
    assert unseal(key, mb, sealed) == text
    for other_key, other_mb in [
        (targets_key(signer(), b"other"), mb),
        (targets_key(signer("x"), b"data"), mb),
        (key, MicrobatchId(3, 5, True)),
        (key, MicrobatchId(4, 5)),
    ]:
        with pytest.raises(AccessError, match="cannot be opened"):
            unseal(other_key, other_mb, sealed)
