"""prorank as a component of LangChain, LlamaIndex and Haystack: one file each, imported only where asked for."""
