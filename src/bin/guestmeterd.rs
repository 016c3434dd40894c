//! `guestmeterd`: arguments, library call, exit code.

fn main() {}
