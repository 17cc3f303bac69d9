"""Emulators of those who carry messages to a customer's phone, each checking what we sign by other code than ours.

Their books and knobs are those of `emulators.server`; what arrived is seen on one page, the phone (`phone`).
"""
