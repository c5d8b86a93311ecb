"""`axe-hf quickstart`: two small models on the built-in phrasebook, one trained with cross entropy, one with AXE."""

from .recipe import QuickstartArguments, QuickstartRecipe
from .run import run_quickstart

__all__ = ["QuickstartArguments", "QuickstartRecipe", "run_quickstart"]
