"""The words of the house: frozen types and Protocols, standard library only.

Read in this order: ``identity``, ``genome``, ``artifact``, ``evidence``, ``policy``, ``promotion``, ``run``, ``ports``.
"""
