"""What the local servers and the page are built with: HTTP and gRPC, a database with one writer, programs that outlive a server.

It knows none of them, and nothing of what an engine means.
"""
