"""The web console: HTML over the REST API, in the same process (ADR 22).

Pages are a client of the API like the command line is: everything that they show and do goes
through ``rest.Rest``, so that rights, checks, retries and errors are the API's own.
"""
