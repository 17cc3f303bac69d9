"""How fast the shop is, as ratios measured in one run: `make bench`, or `make bench SCALE=small` in under a minute.

Absolute times mean nothing on another machine, so every figure is set against what it cannot do without: the bare writes a
sweep needs, one look-up by primary key, payments with nobody else at work. Each measurement works on a fresh copy of
its database, in a process of its own, and verifies its result before it is believed.
"""
