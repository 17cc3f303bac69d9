"""What staff see of notices, and what they do about them."""

from notices.admin import announcing, letters, records, sending, wordings

__all__ = ["announcing", "letters", "records", "sending", "wordings"]
