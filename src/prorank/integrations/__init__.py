"""prorank as a part of other frameworks: one file each, imported only where asked for."""
