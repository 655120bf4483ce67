"""Limits whose state a fleet shares: turns are reserved there, and waited for here."""
