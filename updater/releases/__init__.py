"""The release store: which releases are installed, which is in service, which are good, bad or pinned.

The modules: ``store`` (what is installed), ``service`` (what is in service), ``marks`` (good, bad, pinned), ``shared`` (the links
into ``shared/``), ``verification`` (seal and proof).
"""
