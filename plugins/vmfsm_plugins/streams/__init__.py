"""What consoles and QEMU's output have in common: drained, kept within a bound, written to a file."""
