"""Encrypted ClientHello (RFC 9849): configurations and keys, the extension, and the part of each role."""
