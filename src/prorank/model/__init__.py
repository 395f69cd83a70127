"""Models by name and on disk: checkpoint folders, bases, built-in rerankers, adapters, exported folders; loading."""
