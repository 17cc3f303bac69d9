from pathlib import Path

import pytest

from accounts.models import User
from agreements.tests.editions import publish_both


@pytest.fixture
def published(db: None, tmp_path: Path) -> Path:
    """Version 1 of both documents is in force; the folder they came from."""
    publish_both(tmp_path)
    return tmp_path


@pytest.fixture
def customer(db: None) -> User:
    return User.objects.create_user("buyer@example.com", name="Lin")
