"""Resources as the API shows them, and how entities become them."""
