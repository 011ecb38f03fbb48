"""The crypto engines, a library each, with their trust stores and readers of private keys; by name in libraries.py."""
