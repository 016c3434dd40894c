//! The protocol between host and agent; this rustdoc is its normative spec.
//!
//! [`message`] says what is said, `frame` how it is packed, [`version`] how it may change.

pub mod message;
pub mod version;
