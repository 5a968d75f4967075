"""Who says so: in-toto statements, signed with Ed25519, carried in DSSE envelopes, and read back with suspicion.

``keys`` holds the key files, ``statements`` turns contract values into statements and back, ``dsse`` is the envelope,
``verify`` is the only way from a line of ``claims.jsonl`` to something that may be believed.

Three formats, none of them ours where a published one fits: a genome is SLSA Provenance v1, a verdict is a SLSA
Verification Summary v1 (our findings and evidence stand in an extension field, named by a URI as the spec asks), a
report has a predicate type of its own. Nothing here imports SQLAlchemy, Sigstore or torch: the static gate has to stay
cheap.
"""
