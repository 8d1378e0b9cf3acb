"""Hosts on one machine, made of namespaces: ``make lab``, and the fleet of the multi-host tests.

A host is a set of kernel namespaces around a Debian root tree of its own. It has an address on a
bridge, a hostname, sshd, libvirtd, a subtree of control groups, and a disk that can be full. It
can lose its power, hang, be cut off, be slow. docs/lab.md says how it is used.

Standard library only, so that it runs on a machine where nothing is installed yet. What the kernel
gives back by itself is left to it: mounts live in the hosts' mount namespaces, links in network
namespaces, and every process in the lab's control group, by which ``down`` finds it.
"""
