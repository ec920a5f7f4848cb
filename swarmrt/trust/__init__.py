"""Who owns a run, who was invited to it, and how anybody can check that without asking.

owner key ─ signs ─▶ the run's record, memberships, invitations, delegations
invitation ─ signs ─▶ a pass: "this peer was invited by whoever held me"
pass ─ shown to the trainer ─▶ a membership, bound to the peer, which is shown to everybody
"""
