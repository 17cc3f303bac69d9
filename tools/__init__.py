"""Sets the project up, runs its demo and its tests. Nothing here is part of the shop, and no app imports it."""
