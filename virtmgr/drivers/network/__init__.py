"""The host's network: bridges, NIC ports, DHCP, DNS, NAT, published ports and anti-spoofing."""
