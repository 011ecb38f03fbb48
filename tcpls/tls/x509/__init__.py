"""Certificates in pure Python: DER, what a certificate says, path validation over any engine's signatures."""
