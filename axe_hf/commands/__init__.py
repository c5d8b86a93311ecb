"""The commands of `axe-hf`: modules with `parse`, `run` and `after_interrupt`."""

from .options import CommandParser as CommandParser
from .options import UsageError as UsageError
from .options import without_secrets as without_secrets
