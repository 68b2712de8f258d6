"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """A mistake the user can mend: one sentence with what was expected and what was found.

    The command line prints its message and exits with code 2, without a stack trace.
    """
