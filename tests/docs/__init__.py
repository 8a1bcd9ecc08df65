"""The documentation, tested: its commands are run, and what it names is there. CONTRIBUTING.md tells how pages say what they need."""
