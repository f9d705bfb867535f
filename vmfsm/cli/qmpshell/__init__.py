"""QMP commands as people type them, and a shell for them."""
