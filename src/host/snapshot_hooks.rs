//! What a VM manager does around a snapshot, worked out for QEMU and for Firecracker. No code: read it.
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
//! - `checkpoint` has returned 0 before the pause: its report is this life's last, and no connection is left that the
//!   snapshot could catch half closed. What the guest still runs is counted up to the agent's last look, never the pause.
//! - Every life has an epoch of its own: a random id, minted on the host (a restored guest's random numbers repeat its
//!   sibling's), and a number above all before. A repeated call keeps its epoch; another life never gets one again.
//! - Of each epoch, bill the difference of two reports: a report's `usage` minus its `base` is what this life has used.
//!   What ran before a fork is in the parent's reports alone.
//!
//! What the guest's clock does across the pause does not matter: a frozen clock and one that jumps are billed the same.
//!
//! # Firecracker, in a script
//! The agent is reached through the VMM's vsock socket; its API is asked with curl.
//!
//! ```sh
//! #!/bin/bash
//! # snapshot SANDBOX DIRECTORY: saves the microVM whose sockets are in this directory, and lets it run on.
//! set -euo pipefail
//! sandbox=$1 dir=$2
//! target=hvsock://$dir/v.sock
//!
//! api() { # METHOD PATH BODY
//!     curl -fsS --unix-socket "$dir/api.sock" -X "$1" "http://localhost$2" -H 'Content-Type: application/json' -d "$3"
//! }
//! name() { # [--not-paused]: exit code 1 says that something was found, and is no failure of the snapshot
//!     guestmeter resume "$target" --sandbox "$sandbox" --json "$@" >>"$dir/reports.jsonl" || (($? == 1))
//! }
//!
//! # Memory that is still on its way would be in the snapshot half plugged: exit code 1, and nothing is held.
//! guestmeter checkpoint "$target" --wait-settled --json >>"$dir/reports.jsonl"
//! if ! api PATCH /vm '{"state": "Paused"}'; then
//!     name --not-paused # it never stopped
//!     exit 1
//! fi
//! saved=0
//! api PUT /snapshot/create "{\"snapshot_path\": \"$dir/vm\", \"mem_file_path\": \"$dir/memory\"}" || saved=$?
//! api PATCH /vm '{"state": "Resumed"}'
//! name # the source's new life, saved or not
//! exit "$saved"
//! ```
//!
//! A restore is a life too. Firecracker makes the vsock socket again where the saved VM had it, so that path must be free.
//! Until it is named, the agent counts this life as a provisional one, and says so if it has noticed it:
//!
//! ```sh
//! rm -f "$dir/v.sock"
//! api PUT /snapshot/load "{\"snapshot_path\": \"$dir/vm\", \"resume_vm\": true,
//!     \"mem_backend\": {\"backend_type\": \"File\", \"backend_path\": \"$dir/memory\"}}"
//! # The same sandbox from an older snapshot: what it had counted beyond it is not lost, with the last report as the mark.
//! guestmeter resume "$target" --sandbox "$sandbox" --mark "$dir/reports.jsonl" --json >>"$dir/reports.jsonl" ||
//!     (($? == 1)) # which says `rollback`
//! # Another sandbox from the same snapshot: no mark, for its parent's past is not its own. Exit code 1 says `clone`.
//! guestmeter resume "$target" --sandbox "$child" --json >>"$dir/child.jsonl" || (($? == 1))
//! ```
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
