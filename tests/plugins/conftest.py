"""What tests of several plugins share."""

from tests.plugins.monitors import monitored, monitored_guest

__all__ = ["monitored", "monitored_guest"]
