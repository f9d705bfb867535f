"""What `vmfsm run` does: a machine, a script of steps, and how it ended."""
