//! Generated gRPC messages and services.
