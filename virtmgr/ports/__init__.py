"""What services and agent need of the outside world, as protocols; adapters implement them."""
