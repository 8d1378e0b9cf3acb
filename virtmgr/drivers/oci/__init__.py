"""Containers under an OCI runtime (crun, runc) and conmon."""
