"""The host agent: brings this host to what is desired and says what it sees. Plain threads."""
