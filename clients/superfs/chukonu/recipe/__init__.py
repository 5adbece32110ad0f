"""Recipes: a job written down in YAML, checked before anything runs (docs/chukonu.md)."""

from __future__ import annotations

from superfs.chukonu.recipe.document import RecipeError
from superfs.chukonu.recipe.recipe import Recipe, load

__all__ = ["Recipe", "RecipeError", "load"]
