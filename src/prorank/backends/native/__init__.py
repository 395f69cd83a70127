"""Our own engine: C sources, the compiler that builds them on first use, and the backend that runs them."""
