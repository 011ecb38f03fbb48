"""TLS 1.3 (RFC 8446), both roles, without input and output of its own. It knows nothing of TCPLS."""
