//! One integration binary.

#[cfg(feature = "agent")]
mod agent;
