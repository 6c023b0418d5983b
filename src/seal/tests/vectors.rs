//! Vectors
