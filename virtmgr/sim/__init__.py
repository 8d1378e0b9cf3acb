"""A simulated fleet: many hosts in one process, which speak the real protocol over real mutual TLS.

What is real: certificates, connections, HTTP, the sync protocol, the plan of what to do
(``domain/plan.py``) and the fake driver. What is imaginary: machines, guests, and time that steps
take. ``behaviour.py`` says how they behave, by a seed; ``faults.py`` what goes wrong, and when.
"""
