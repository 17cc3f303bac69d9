"""What the emulators of other people's servers share: books, faults to set, webhooks that are sent, and a server.

Payment providers are in `orders/gateways/emulators`, those that carry messages in `notices/channels/emulators`.
"""
