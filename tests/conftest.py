"""Settings of the whole suite."""

from hypothesis import settings

# The same examples on every run and every machine; slow, shared cores are no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
