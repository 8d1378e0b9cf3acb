"""Networks of one Linux host: bridges, veth, DHCP, DNS, NAT, published ports, anti-spoofing."""
