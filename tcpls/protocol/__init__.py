"""The TCPLS session (draft-piraux-tcpls-04 and docs/wire-format.md), without input and output of its own."""
