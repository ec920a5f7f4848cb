"""The trust of a run: who owns it, who was invited to it, and how anybody checks that unasked.

owner key ─ signs ─▶ the run's record, memberships, invitations, delegations
invitation ─ signs ─▶ a pass: "this peer was invited by whoever held me"
pass ─ shown to the trainer ─▶ a membership, bound to the peer, which is shown to everybody
"""
