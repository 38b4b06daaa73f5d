"""Settings of the tests of the pages."""

from tests.conftest import one_thread  # noqa: F401
