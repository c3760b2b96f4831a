"""Queries for the Inductor: collected from instruction data, freed of duplicates, counted and compared.

A file of queries is JSON lines, one :class:`~tam_plugin.inductor.data.records.Record` a line; with labels it is what
:func:`tam_plugin.inductor.dataset.read_queries` reads.
"""
