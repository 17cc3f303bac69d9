"""What is on record for good: tables that only grow, and columns that are written once.

The lowest layer. A model declares what may not change; the database refuses it, whoever asks.
"""
