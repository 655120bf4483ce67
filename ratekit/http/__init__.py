"""Rules of HTTP itself, each a pure function of what was sent."""
