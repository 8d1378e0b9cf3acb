"""How hosts come to belong to a control plane: certificates now, Ansible runs on top of them."""
