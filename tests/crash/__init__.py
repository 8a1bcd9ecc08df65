"""Crashes, and what comes close to them. Four ways to look, each with its own parts:

Crash points (``python -m tests.crash``, and a sample in ``test_sample``): ``operations`` is what is interrupted, ``world`` where, ``calls``
sees each call before it is made, ``faults`` is how it is interrupted, ``disk`` and ``clock`` are what that needs, ``oracle`` what must
be true afterwards; ``points`` chooses, ``campaign`` tries and tells, ``planted`` asks whether all this would find a defect.

A model (``test_model``): whatever is typed, killed and edited, a root is as ``model`` says.

A long life (``python -m tests.crash.load``, and a part of it in ``test_load``): ``plans`` says what each deployment does, ``starts``
does it, ``bystanders`` look on, ``ledger`` and ``measures`` keep the accounts.

Moments that have a name (``test_moments``).
"""
