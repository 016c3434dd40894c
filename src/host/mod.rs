//! The host's side: ask agents, check what they say, show it.
//!
//! A [`Target`] says where an agent is, a [`Client`] asks it, a [`Reading`] is what it said with what only the host
//! knows of it, and [`json`] and [`table`] show one. [`replay`] counts recorded observations. The command line is
//! [`cli`].
//! [`vmm`] asks the VMM itself.
//!
//! Around a pause or a snapshot a [`Client`] closes one life of its guest and names the next; a [`Conversation`] does so
//! on one connection, [`state_file`] keeps what a host without a ledger has to, [`listen`] hears what a guest says unasked, and [`snapshot_hooks`] has whole examples.
//!
//! Whoever runs a platform with all this begins with [`guide`].
//!
//! A guest number is evidence, never authority: the guest's tenant can forge any of it.
//!
//! # Example
//! Reads this machine's own agent, here started on a Unix socket for the purpose.
//!
//! ```
//! # #[cfg(feature = "agent")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let socket = directory.path().join("agent.sock");
//! # let listen = format!("unix://{}", socket.display());
//! # let state = directory.path().join("state");
//! # let arguments = ["--listen", &listen, "--notify", "none", "--state"].map(std::ffi::OsString::from);
//! # let arguments = arguments.into_iter().chain([state.into_os_string()]).collect::<Vec<_>>();
//! # std::thread::spawn(|| guestmeter::agent::run(arguments, guestmeter::agent::Process::Shared));
//! # while !socket.exists() { std::thread::sleep(std::time::Duration::from_millis(10)) }
//! # let address = listen;
//! use guestmeter::host::{Client, Target};
//! use std::time::Duration;
//!
//! let target: Target = address.parse()?; // "vsock://42", "hvsock:///run/vm/v.sock", "unix:///run/agent.sock"
//! let client = Client::new(target, Duration::from_secs(5));
//! let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! let reading = runtime.block_on(client.read())?;
//!
//! // `None` is unknown, never zero.
//! if let Some(total) = reading.report.memory.total() {
//!     println!("{}: {total}, running for {} s", reading.target, reading.report.usage.active.whole);
//! }
//! # assert!(reading.report.memory.mem_total.is_some());
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "agent"))]
//! # fn main() {}
//! ```

mod asked;
pub mod cli;
mod client;
mod connection;
mod conversation;
mod decimal;
mod error;
pub mod explain;
#[doc = include_str!("guide.md")]
pub mod guide {}
pub mod json;
mod json_integer;
mod json_lines;
pub mod ledger;
pub mod listen;
pub mod mark;
pub mod parity;
mod random;
pub mod reconcile;
pub mod replay;
#[cfg(feature = "agent")]
pub mod simulate;
pub mod snapshot_hooks;
pub mod state_file;
pub mod table;
mod target;
mod text;
pub mod tiers;
mod toml_text;
mod transport;
pub mod vmm;
mod vsock;
pub mod worker;

pub use client::{Client, Reading, SettleOutcome, TIMEOUT_DEFAULT, Watcher};
pub use conversation::Conversation;
pub use error::{Cause, ClientError, Kind, Life, Step};
pub use json_lines::{ByteOrderMark, LineError};
pub use random::mint_epoch;
pub use target::{PORT_DEFAULT, Target, TargetError, TargetFault};
pub use toml_text::TomlError;
