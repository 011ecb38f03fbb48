"""What only the kernel can do: socket options, kTLS, congestion controllers. The only place with ctypes."""
