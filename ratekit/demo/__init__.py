"""`ratekit demo`: one job against one rate-limited server, with ratekit and without."""
