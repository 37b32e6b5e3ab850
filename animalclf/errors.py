"""The one error that people see: what is wrong, where, and what to do."""


class UserError(Exception):
    """A request that cannot be met. Its text names the file or key and the remedy; the commands print it without a
    traceback and exit with 2."""
