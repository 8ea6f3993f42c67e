"""Boards over ssh: the system's `ssh`, the agent that is sent there, and the measurer that asks it."""
