"""A laboratory: named scenarios on an emulated network, on one machine, for TCPLS and for what it is compared with.

`scenarios` is what happens, `network` where it happens, `run` has it happen, `results` says what came of it.
"""
