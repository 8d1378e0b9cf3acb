"""Fence devices: IPMI by pyghmi, Redfish by sushy."""
