"""What several tests share: tiny models, tokenizers and collections, and stand-ins for other servers."""
