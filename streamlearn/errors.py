"""The one exception for users' mistakes: a single line that says where and what to do."""


class UserError(ValueError):
    """A mistake in a configuration, a file or an argument; the command line exits with 2."""
