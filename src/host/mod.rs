//! The host side.
pub mod replay;
