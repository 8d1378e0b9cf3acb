"""Traces of workloads for measuring placement: made by ``synthetic``, or read from public ones.

``azure`` reads Microsoft's packing trace of 2020, ``alibaba`` the cluster trace of 2018. The data
are not in the repository: both are downloaded by whoever wants them, under their own licences.
"""
