"""The tables and pictures that pages take from committed records, one module a page."""
