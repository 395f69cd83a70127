"""The version: of the source, so that it holds in a copied tree without an installed package's metadata."""

__all__ = ["__version__"]

__version__ = "0.1.0"
