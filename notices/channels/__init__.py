"""Every channel there is, by its slug. In this order a worker turns to them: the quick one first."""

from notices.channels.app import App
from notices.channels.email import Email
from notices.channels.in_site import InSite
from notices.channels.letter import Letter
from notices.channels.protocol import Channel
from notices.channels.push import Push
from notices.channels.sms import Sms
from notices.channels.wechat import Wechat

CHANNELS: dict[str, Channel] = {
    channel.slug: channel for channel in (InSite(), Push(), App(), Wechat(), Sms(), Email(), Letter())
}
