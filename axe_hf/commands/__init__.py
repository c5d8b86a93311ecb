"""The commands of `axe-hf`: modules with `parse`, `run` and `after_interrupt`."""

from .parsing import CommandParser as CommandParser
from .parsing import UsageError as UsageError
