"""One module a command: its arguments, its help, and how its result is shown. The work is done elsewhere."""
