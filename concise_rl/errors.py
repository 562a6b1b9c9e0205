"""The errors a person can mend: raised early, shown as one line, exit code 2."""


class UserError(ValueError):
    """Bad input of any kind: the message names the field, the value and the remedy."""


class DataError(UserError):
    """A data set that cannot be used: names the source and the row."""
