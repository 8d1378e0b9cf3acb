"""A scriptable driver without guests: delays, failures and crashes on demand."""
