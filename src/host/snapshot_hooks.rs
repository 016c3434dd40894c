//! What a VM manager does around a snapshot, worked out on the library. Hooks that call the command, for Firecracker and for
//! QEMU, are in the README.
//!
//! | when | what | command |
//! |---|---|---|
//! | a VM has booted, or is taken over | name its first life | `resume --not-paused` |
//! | before a pause | close the count, and hold it | `checkpoint` |
//! | the VM runs again, here or elsewhere, once or as several | name each life that begins, **the source's too** | `resume` |
//! | the snapshot was given up before the pause | end the hold | `resume --not-paused` |
//! | the snapshot failed while paused | it was a pause all the same | `resume` |
//!
//! Three things decide whether the numbers are right:
//! - `checkpoint` has returned before the pause: its report is this life's last, and no connection is left that the
//!   snapshot could catch half closed. What the guest still runs is counted up to the agent's last look, never the pause.
//! - Every life has an epoch of its own: a random id, minted on the host (a restored guest's random numbers repeat its
//!   sibling's), and a number above all before. A repeated call keeps its epoch; another life never gets one again.
//! - Of each epoch, bill the difference of two reports: a report's `usage` minus its `base` is what this life has used.
//!   What ran before a fork is in the parent's reports alone.
//!
//! What the guest's clock does across the pause does not matter: a frozen clock and one that jumps are billed the same.
//!
//! # QEMU, in a program
//! With a ledger the epoch and its number are committed there before they are sent, and a report is acknowledged after it
//! is committed. QEMU itself is asked over QMP; `file:` needs QEMU 8.2. The restored VM is a new process with
//! `-incoming file:PATH`; once QMP says that it runs, its life is named the same way.
//!
//! ```no_run
//! use guestmeter::host::{Client, Reading, mint_epoch};
//! use guestmeter::units::Nanos;
//! use guestmeter::wire::message::{Ack, Checkpoint, Resume};
//! use serde_json::{Value, json};
//! use std::io::{BufRead, BufReader, Error, Write};
//! use std::os::unix::net::UnixStream;
//! use std::time::{Duration, SystemTime, UNIX_EPOCH};
//!
//! /// QMP, one command at a time; events are skipped.
//! struct Qmp(BufReader<UnixStream>);
//!
//! impl Qmp {
//!     fn ask(&mut self, execute: &str, arguments: Value) -> Result<Value, Error> {
//!         let command = json!({"execute": execute, "arguments": arguments});
//!         writeln!(self.0.get_mut(), "{command}")?;
//!         loop {
//!             let mut line = String::new();
//!             if self.0.read_line(&mut line)? == 0 {
//!                 return Err(Error::other("QEMU has closed QMP"));
//!             }
//!             let mut answer: Value = serde_json::from_str(&line)?;
//!             if let Some(error) = answer.get("error") {
//!                 return Err(Error::other(format!("{execute}: {error}")));
//!             }
//!             if let Some(result) = answer.get_mut("return") {
//!                 return Ok(result.take());
//!             }
//!         }
//!     }
//! }
//!
//! fn save(qmp: &mut Qmp, file: &str) -> Result<(), Error> {
//!     qmp.ask("migrate", json!({"uri": format!("file:{file}")}))?;
//!     loop {
//!         let state = qmp.ask("query-migrate", json!({}))?;
//!         match state["status"].as_str() {
//!             Some("completed") => return Ok(()),
//!             Some("failed" | "cancelled") => return Err(Error::other(format!("saving: {state}"))),
//!             _ => std::thread::sleep(Duration::from_millis(20)),
//!         }
//!     }
//! }
//!
//! /// Names a life. The ledger has the epoch already; `paused` is false where the VM never stopped.
//! async fn name(client: &Client, life: Checkpoint, sandbox: &str, paused: bool) -> Result<Reading, Box<dyn std::error::Error>> {
//!     let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
//!     let named = client
//!         .resume(&Resume {
//!             epoch: life.epoch,
//!             number: life.number,
//!             paused,
//!             sandbox: sandbox.to_owned(),
//!             at: Nanos::from(now),
//!             mark: None,
//!             requested: None,
//!             boot: None,
//!         })
//!         .await?;
//!     commit_and_ack(client, &named).await?;
//!     Ok(named)
//! }
//!
//! async fn commit_and_ack(client: &Client, reading: &Reading) -> Result<(), Box<dyn std::error::Error>> {
//!     // Commit it here, then:
//!     let identity = &reading.report.identity;
//!     Ok(client.ack(Ack { epoch: identity.epoch.id, seq: identity.seq }).await?)
//! }
//!
//! /// Saves a VM in life `life` to `file`; it runs on in life `next`.
//! async fn snapshot(qmp: &mut Qmp, target: &str, sandbox: &str, life: Checkpoint, next: Checkpoint, file: &str) -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::new(target.parse()?, Duration::from_secs(5)).patient(Duration::from_secs(15));
//!     let last = client.checkpoint(life).await?;
//!     commit_and_ack(&client, &last).await?;
//!     if let Err(error) = qmp.ask("stop", json!({})) {
//!         name(&client, next, sandbox, false).await?;
//!         return Err(error.into());
//!     }
//!     let saved = save(qmp, file);
//!     qmp.ask("cont", json!({}))?;
//!     name(&client, next, sandbox, true).await?;
//!     Ok(saved?)
//! }
//!
//! # async fn hook() -> Result<(), Box<dyn std::error::Error>> {
//! let mut qmp = Qmp(BufReader::new(UnixStream::connect("/run/vm/qmp.sock")?));
//! qmp.ask("qmp_capabilities", json!({}))?;
//! let life = Checkpoint { epoch: mint_epoch()?, number: 41 }; // as the ledger has it
//! let next = Checkpoint { epoch: mint_epoch()?, number: 42 }; // committed to it before this
//! snapshot(&mut qmp, "vsock://42", "sandbox-7", life, next, "/var/lib/vm/snapshot").await?;
//! # Ok(())
//! # }
//! ```
