"""The command line: a client of the REST API, and the commands that run virtmgr itself.

Modules are imported when their command is called, so that every command starts fast.
"""
