"""The times of the cores that nobody has measured: one table.

First guesses serve until something is learned. The others are not learned: how often something is
looked at or said, how long something may be a mistake, and where patience ends.
"""

from __future__ import annotations

# ---------------------------------------------------------------------- first guesses

ANSWER_S = 5.0
"""The first answers of a kind are waited for so long."""

CLAIM_S = 10.0
"""The first claims, for which a microbatch has to pass all stages, are waited for so long."""

ROUND_S = 30.0
"""The first rounds, in which every stage reduces, are waited for so long."""

FIRST_UPDATE_S = 30.0
"""The first update is waited for so long before anybody is done without for it."""

COMPUTATION_S = 4.0
"""A computation takes no longer, before a step was timed: half a minute is late then."""

LOAD_S = 60.0
"""The first newcomers may take so long to load their state, where others wait for them."""

UNTIMED_ROUND_S = 120.0
"""A round may take so long while its parts move, before a step was timed."""

UNMEASURED_LINK_S = 6.0
"""A word may wait so long for the frame before it on a link whose rate is not known: twice what it
takes to learn that."""

CHUNK_S = 10.0
"""The first chunk of a state is waited for so long."""

OFFER_S = 5.0
"""An offer of a state is waited for so long: the file may still have to be written."""

# ---------------------------------------------------------------------- how often

BEACON_S = 0.5
"""Between beacons: often enough for a live view, rare enough to cost nothing."""

OFFERS_S = 5.0
"""Between words of a process on what it may serve and which seats it holds."""

ARRANGE_S = 0.5
"""Between looks at who has come, gone, or loaded a state, of those whom the trainer arranges."""

HEALTH_S = 0.25
"""Between looks at which members are late."""

LOOK_S = 1.25
"""Between looks at what moves in a round: beacons tell it twice a second."""

REWIRE_S = 0.25
"""Before a replica is asked again that could not take work, where no other one can."""

LOAD_AGAIN_S = 0.5
"""Before the third try in a row to load a state; twice as long each time."""

AGAIN_S = 4.0
"""Before a donor is asked again whose link broke."""

SAVE_S = 1.0
"""Before another try to save a checkpoint, times the tries that have failed."""

REMIND_S = 1.0
"""Between reminders of neighbours: words are lost with a link, and rarely else."""

REPORT_S = 1.0
"""Between reports of for whom the run waits."""

SAY_S = 60.0
"""Without any progress anywhere before people are told, and between such words."""

SAY_AGAIN_S = 30.0
"""Before a peer's first word of what it waits for, and between two."""

# ---------------------------------------------------------------------- what may be a mistake

BURST_S = 0.25
"""Half of what is between two beacons: several hails are answered at once, or nearly."""

DOUBT_S = 0.25
"""Half of what is between two beacons: several late ones come together."""

LATER_S = 0.25
"""Donors may say so much later than the first one which file they have, at the least."""

CONFIRM_S = 1.0
"""The other end of a link sees in this time that it broke as well, and says so."""

LISTEN_S = 1.5
"""A newcomer without anything new of what it misses for so long has missed it for good."""

SETTLE_S = 3.0
"""More peers may answer a hail for so long, once there are enough."""

AT_ONCE_S = 2.0
"""Peers that are lost within this time may have been killed by one event. Links take half a second
to break."""

BACK_S = 10.0
"""A peer whose link was cut comes back in this time, and others get further than it did."""

FILL_IN_S = 10.0
"""Replicas that a run waits for may come so much later than a spare, before that one fills in."""

# ---------------------------------------------------------------------- where patience ends

TAKE_S = 30.0
"""An order to take or to give up a seat is followed in this time, or not at all."""

SWITCH_S = 60.0
"""A peer that has the state is let in at another stage in this time, or stays where it serves."""

MOVE_AGAIN_S = 30.0
"""A process that has not done what it was asked for is asked again after this time, twice as long
each time."""

BLAME_S = 0.25
"""Whose frames cannot be computed is refused for so long: a sender waits as long anyway."""

CUT_S = 20.0
"""The longest time for which a peer that was cut off from others stays out of the step."""

LEAST_REST_S, MOST_REST_S = 10.0, 3600.0
"""The least and the most time for which a peer that is too slow rests."""

MORE_S = 2.0
"""A step is longer with a member by at least so much: less is hardly due to one."""

LEAST_DEAR_S = 2.0
"""A round takes longer for a link by at least so much: less is hardly due to it."""

LONGEST_ROUND_S = 10.0
"""A round goes on for at least so long, while its parts move, before somebody is left out of it."""

MOST_AWAY_S = 60.0
"""All donors of a state may be away for so long."""

STALL_S = 300.0
"""Without any progress before it is tried without whoever is waited for."""
