"""Options that say which control plane is asked, and as whom."""

from __future__ import annotations


class ModuleDocFragment:
    """For modules and for the inventory plugin."""

    DOCUMENTATION = r"""
options:
  server:
    description: The REST API, as V(https://ADDRESS:PORT). By default E(VIRTMGR_SERVER).
    type: str
  token:
    description: A token of somebody who may do this. O(token_file) keeps it out of inventories.
    type: str
  token_file:
    description: A file with the token. By default E(VIRTMGR_TOKEN_FILE), then the token in
      E(VIRTMGR_TOKEN).
    type: path
  ca_file:
    description: The control plane's CA certificate, the only one that is then trusted. By default
      E(VIRTMGR_CA_FILE), else the system's are.
    type: path
  validate_certs:
    description: Whether the server's certificate is checked. Only ever false in a trial.
    type: bool
    default: true
  timeout:
    description: How many seconds an operation may take.
    type: int
    default: 300
"""

    CHANGING = r"""
options:
  state:
    description: Whether it shall be there.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    description: Asks the control plane for a dry run, which checks everything and does nothing.
    support: full
  diff_mode:
    description: Shows what changes.
    support: full
"""
