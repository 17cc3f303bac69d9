"""Payment providers to try the gateways on: real HTTP servers that keep books, sign webhooks and can be told to fail.

They import nothing of the gateways: what an adapter gets wrong must not be wrong here in the same way.
"""
