"""Images and volumes on a host's local disk."""
