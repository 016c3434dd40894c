//! `resume`: names the life that begins after a pause, a restore, a fresh start or a snapshot that was given up.

use super::Outcome;
use super::args::ResumeArgs;
use super::error::CliError;
use super::lifecycle::{acknowledge, client, failed, show, wait_settled};
use super::output::{Output, complaint};
use crate::capacity::MemoryState;
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::ClientError;
use crate::host::mark::{self, MarkError};
use crate::host::random::mint_epoch;
use crate::host::text::Safe;
use crate::units::Nanos;
use crate::wire::message::{Finding, Mark, Report, Resume, Welcome};
use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A report has less than 4 KiB.
const MARK_BYTES_MAX: u64 = 1 << 20;

/// A life that was named, and who the guest was before.
struct Named {
    conversation: Conversation,
    reading: Reading,
    before: Option<String>,
}

pub(super) async fn run(args: ResumeArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let mark = args.mark.as_deref().map(|file| read_mark(file, &args.sandbox)).transpose()?;
    let resume = Resume {
        epoch: args.epoch.map_or_else(mint_epoch, Ok).map_err(CliError::Random)?,
        number: args.number.unwrap_or(0),
        paused: !args.not_paused,
        sandbox: args.sandbox.clone(),
        at: unix_now(),
        mark,
        requested: args.expect,
        boot: args.boot,
    };
    let client = client(args.target.clone(), args.retry_for);
    let Named { mut conversation, reading, before } = match name(&client, resume).await {
        Ok(named) => named,
        Err(error) => return Ok(failed(&error)),
    };
    show(&reading, args.json, output)?;
    let copied = before.filter(|before| *before != args.sandbox);
    if let Some(before) = &copied {
        let (target, before, now) = (client.target(), Safe(before), Safe(&args.sandbox));
        complaint(&format!("{target}: clone: it was sandbox {before} until now, and is {now} from now on"));
    }
    let mut found = copied.is_some() || notable(&reading.report);
    if let Err(error) = acknowledge(&mut conversation, &reading, args.no_ack).await {
        return Ok(failed(&error));
    }
    if args.settle.wait_settled {
        let verdict = match wait_settled(&mut conversation, &args.settle, args.expect).await {
            Ok(verdict) => verdict,
            Err(error) => return Ok(failed(&error)),
        };
        verdict.show(args.json, output)?;
        found |= !verdict.fine;
        if let Err(error) = acknowledge(&mut conversation, &verdict.reading, args.no_ack).await {
            return Ok(failed(&error));
        }
    }
    match conversation.close().await {
        Ok(()) if found => Ok(Outcome::Found),
        Ok(()) => Ok(Outcome::Fine),
        Err(error) => Ok(failed(&error)),
    }
}

/// Every attempt names the same epoch with the same number, so that one that did arrive is not followed by another.
async fn name(client: &Client, resume: Resume) -> Result<Named, ClientError> {
    let (chosen, before) = (Cell::new(resume.number), RefCell::new(None));
    client
        .retrying(|| async {
            let mut conversation = client.converse().await?;
            let welcome = conversation.welcome();
            if chosen.get() == 0 {
                chosen.set(number(welcome, &resume));
            }
            // An attempt that arrived has renamed it already.
            if welcome.epoch.id != resume.epoch {
                before.replace(welcome.sandbox.clone());
            }
            let reading = conversation.resume(Resume { number: chosen.get(), ..resume.clone() }).await?;
            Ok(Named { conversation, reading, before: before.borrow().clone() })
        })
        .await
}

/// Above the guest's own, and above those that this command gave other guests before.
fn number(welcome: &Welcome, resume: &Resume) -> u64 {
    if welcome.epoch.id == resume.epoch {
        return welcome.epoch.number;
    }
    welcome.epoch.number.saturating_add(1).max(resume.at.0)
}

/// Whether a script should look: not what is usual after a resume.
fn notable(report: &Report) -> bool {
    let short = matches!(report.memory.state, MemoryState::Short | MemoryState::Over);
    let told = |finding| report.tail.findings.contains(&finding);
    short || told(Finding::Clone) || told(Finding::Rollback) || told(Finding::MarkIgnored)
}

fn read_mark(file: &Path, sandbox: &str) -> Result<Mark, CliError> {
    let path = || file.display().to_string();
    let open = |error| CliError::Open { path: path(), error };
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(std::fs::File::open(file).map_err(open)?),
    };
    let mut text = String::new();
    let read = source.take(MARK_BYTES_MAX + 1).read_to_string(&mut text);
    match read {
        Ok(_) if u64::try_from(text.len()).is_ok_and(|length| length <= MARK_BYTES_MAX) => {}
        Ok(_) => return Err(CliError::MarkSize { path: path(), max: MARK_BYTES_MAX }),
        Err(error) => return Err(open(error)),
    }
    mark::mark(&text, sandbox).map_err(|error: MarkError| CliError::Mark { path: path(), error })
}

fn unix_now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::from(since)
}
