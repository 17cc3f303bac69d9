"""The browser, and the shop it looks at."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from pytest_playwright import CreateContextCallback

from tests.stack import Stack, running_stack

NewPerson = Callable[[], Page]

LOCALE, ZONE = "en-GB", "Europe/Berlin"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The machine's own Chromium: Playwright's builds are not in any package registry."""
    return {**browser_type_launch_args, "executable_path": CHROMIUM}


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All processes of the shop, of the kind that --stack names."""
    var: Path = tmp_path_factory.mktemp("stack")
    with running_stack(request.config.getoption("--stack"), var=var) as stack:
        yield stack


@pytest.fixture
def new_person(new_context: CreateContextCallback, stack: Stack) -> NewPerson:
    """A browser nobody has used."""
    return lambda: watched(new_context(base_url=stack.url, locale=LOCALE, timezone_id=ZONE).new_page())


def watched(page: Page) -> Page:
    """The page; any error of a script on it, and any breach of the CSP, fails the test."""

    def no_errors(message: object) -> None:
        raise AssertionError(f"The page complained: {message}")

    page.on("pageerror", no_errors)
    page.on(
        "console",
        lambda said: no_errors(said.text) if "Content Security Policy" in said.text else None,
    )
    return page
