"""Limits: what may be granted (`limit`, `gcra`), to whom next (`waiting`), and the policy."""
