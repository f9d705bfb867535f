"""What the tests of the command line share."""

from tests.cli.harness import harness

__all__ = ["harness"]
