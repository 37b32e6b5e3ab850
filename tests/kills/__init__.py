"""Kills and full disks at random instants: `make test-kill`, and a few in the test suite."""
