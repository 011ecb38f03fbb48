"""Any TCP program over one session: a front for local programs, and the gateway that connects for them.

It uses the public names of the package only. docs/proxy.md has the protocol between the two.
"""
