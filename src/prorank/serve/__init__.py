"""The rerank server: the wire formats of the services people already use, one batcher, and a page.

Start it with ``prorank serve``, or mount :func:`prorank.serve.app.create_app` in a program of your own. Importing this
package imports nothing heavy; :mod:`prorank.serve.app` needs the extra ``serve``.
"""
