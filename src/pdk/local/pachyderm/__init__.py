"""The local Pachyderm server: gRPC and S3 gateway."""
