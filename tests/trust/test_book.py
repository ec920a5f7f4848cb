"""The access book: who may come in, as a story of its lines."""

from __future__ import annotations

import msgspec
import pytest

from swarmrt.ids import PeerId, RunId
from swarmrt.trust.book import AccessBook, AnyEntry, Invited, Joined, Verdict
from swarmrt.trust.checking import Credential
from swarmrt.trust.statements import Invitation, moment

A, B, C = (PeerId(f"Qm{name}") for name in "ABC")
RUN = RunId("run", "a" * 26)


def invitation(
    name: str, uses: int = 1, stages: tuple[int, ...] = (), note: str = ""
) -> Invitation:
    key = "k" * 43
    return Invitation(
        run=str(RUN), exp=moment(9e9), jti=name, key=key, uses=uses, stages=stages, note=note
    )


def asks(
    book: AccessBook, peer: PeerId, stages: tuple[int, ...], by: Invitation | None = None
) -> Verdict:
    return book.ask(Credential(peer, until=9e9, invitation=by), stages, 1.0)


def test_invitation_brings_in_as_many_as_it_says() -> None:
    book, by = AccessBook("invited", 3), invitation("one", uses=2)
    assert "without an invitation" in asks(book, A, (0,)).refusal
    assert asks(book, A, (0,), by).entries == [Joined(1.0, A, "one", "", (0,))]
    assert not asks(book, A, (0,)).refusal  # it is known by now
    assert asks(book, A, (0,), by).entries == []  # which uses nothing up
    assert not asks(book, B, (1,), by).refusal
    assert "was for 2 peers" in asks(book, C, (1,), by).refusal


def test_member_of_one_stage_is_none_of_another() -> None:
    book = AccessBook("invited", 3)
    asks(book, A, (0,), invitation("one", stages=(0, 1)))
    assert "without an invitation" in asks(book, A, (1,)).refusal
    assert "is for stage 0, 1 only" in asks(book, A, (2,), invitation("one", stages=(0, 1))).refusal
    assert asks(book, A, (1,), invitation("one", stages=(0, 1))).stages == (0, 1)


@pytest.mark.parametrize("stages", [(), (3,), (-1,), (0, 1 << 60)])
def test_stage_that_is_not_there(stages: tuple[int, ...]) -> None:
    assert "there is no such stage" in asks(AccessBook("open", 3), A, stages).refusal


@pytest.mark.parametrize("who", ["one", "alice", A])
def test_revoked_peer_stays_out(who: str) -> None:
    book, by = AccessBook("invited", 3), invitation("one", uses=9, note="alice")
    asks(book, A, (0,), by)
    asks(book, C, (0,), invitation("other"))
    entry, hit = book.revoke(who, "it lies", 2.0)
    assert hit == [A] and "it lies" in asks(book, A, (0,), by).refusal
    assert bool(asks(book, B, (0,), by).refusal) == (who != A)  # what brought it in, as well
    assert not asks(book, C, (0,)).refusal
    again = AccessBook("invited", 3)
    again.read([Joined(1.0, A, "one", "alice", (0,)), entry])
    assert "it lies" in asks(again, A, (0,), by).refusal


def test_invitation_that_nobody_has_used_can_be_taken_back() -> None:
    book, by = AccessBook("invited", 3), invitation("one", note="bob")
    book.read([Invited(0.0, "one", "bob", 1, 9e9)])
    assert book.knows("bob") and book.knows("one") and not book.knows("carol")
    book.revoke("bob", "", 2.0)
    assert "taken this invitation back" in asks(book, A, (0,), by).refusal


def test_open_run_takes_everybody_but_the_revoked() -> None:
    book = AccessBook("open", 2)
    assert asks(book, A, (1,)).stages == (1,)
    assert asks(book, A, (0,)).stages == (0, 1)
    book.revoke(A, "", 2.0)
    assert asks(book, A, (0,)).refusal


def test_made_up_members_of_an_open_run_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The book and its file have an end; who comes after it is let in all the same."""
    monkeypatch.setattr("swarmrt.trust.book.MAX_MEMBERS", 3)
    book = AccessBook("open", 2)
    for number in range(9):
        asks(book, PeerId(f"made-up-{number}"), (1,))
    late = asks(book, A, (1,))
    assert not late.refusal and late.stages == (1,) and late.entries == []
    assert len(book.members) == 3
    _, hit = book.revoke(A, "it lies", 2.0)
    assert hit == [A] and asks(book, A, (1,)).refusal
    assert "as many members" in asks(full_by_invitation(), A, (1,), invitation("one", 9)).refusal


def full_by_invitation() -> AccessBook:
    book, by = AccessBook("invited", 2), invitation("one", 9)
    for number in range(3):
        asks(book, PeerId(f"Qm{number}"), (1,), by)
    return book


def test_book_of_lines_is_the_book_that_wrote_them() -> None:
    book, lines = AccessBook("invited", 3), b""
    for peer, name in [(A, "one"), (B, "two")]:
        for entry in asks(book, peer, (0,), invitation(name, note="n")).entries:
            lines += msgspec.json.encode(entry) + b"\n"
    lines += msgspec.json.encode(book.revoke("two", "why", 3.0)[0])
    again = AccessBook("invited", 3)
    again.read([msgspec.json.decode(line, type=AnyEntry) for line in lines.splitlines()])
    assert (again.members, again.revoked) == (book.members, book.revoked)
