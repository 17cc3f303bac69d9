"""Every channel there is, by its slug. In this order a worker turns to them: the quick one first."""

from notices.channels.email import Email
from notices.channels.in_site import InSite
from notices.channels.protocol import Channel

CHANNELS: dict[str, Channel] = {channel.slug: channel for channel in (InSite(), Email())}
