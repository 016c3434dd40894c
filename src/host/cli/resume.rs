//! `resume`: names the life that begins after a pause, a restore, a fresh start or a snapshot that was given up.

use super::Outcome;
use super::args::ResumeArgs;
use super::error::CliError;
use super::lifecycle::{acknowledge, client, done, failed, show, undone, wait_settled};
use super::output::{Output, complaint};
use crate::capacity::MemoryState;
use crate::host::client::{Client, Reading};
use crate::host::conversation::Conversation;
use crate::host::error::ClientError;
use crate::host::mark::{self, MarkError};
use crate::host::state_file::{Call, Minted, Named, StateFile, unix_now};
use crate::host::text::Safe;
use crate::wire::message::{Finding, Mark, Report, Resume};
use std::cell::RefCell;
use std::io::{self, Read};
use std::path::Path;

/// A report has less than 4 KiB.
const MARK_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn run(args: ResumeArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let mark = args.mark.as_deref().map(|file| read_mark(file, &args.sandbox)).transpose()?;
    let client = client(args.target.clone(), args.retry_for);
    let call = Call {
        event: args.life.event.clone(),
        paused: !args.not_paused,
        requested: args.expect,
        boot: args.boot,
    };
    let named = match (&args.life.minted.state, args.life.minted.epoch) {
        (Some(path), _) => {
            let mut state = StateFile::open(path, &args.sandbox, args.retry_for).await?;
            match state.resume(&client, &call).await {
                Ok(named) => named,
                Err(error) => return undone(error),
            }
        }
        (None, Some(epoch)) => match name(&client, &args.sandbox, call, epoch, mark).await {
            Ok(named) => named,
            Err(error) => return Ok(failed(&error)),
        },
        (None, None) => return Err(CliError::Usage("--state or --epoch says which epoch begins".to_owned())),
    };
    let Named { mut conversation, reading, clone_of } = named;
    if let Some(before) = &clone_of {
        let (target, before, now) = (client.target(), Safe(before), Safe(&args.sandbox));
        complaint(&format!("{target}: clone: it was sandbox {before} until now, and is {now} from now on"));
    }
    let mut found = clone_of.is_some() || notable(&reading.report);
    let (shown, told) = tell(&mut conversation, &args, &reading, &mut found, output).await;
    let closed = conversation.close().await;
    let outcome = done("the life is named all the same", told.and(closed), found);
    shown.map(|()| outcome)
}

/// Shows and acknowledges what was said, and what is said once memory has settled.
async fn tell(
    conversation: &mut Conversation,
    args: &ResumeArgs,
    reading: &Reading,
    found: &mut bool,
    output: &mut Output,
) -> (Result<(), CliError>, Result<(), ClientError>) {
    if let Err(error) = show(reading, args.json, output) {
        return (Err(error), Ok(()));
    }
    if let Err(error) = acknowledge(conversation, reading, args.no_ack).await {
        return (Ok(()), Err(error));
    }
    let Some(limit) = args.settle.wait_settled else { return (Ok(()), Ok(())) };
    let verdict = match wait_settled(conversation, limit, &args.settle, args.expect).await {
        Ok(verdict) => verdict,
        Err(error) => return (Ok(()), Err(error)),
    };
    *found |= !verdict.fine;
    if let Err(error) = verdict.show(args.json, output) {
        return (Err(error), Ok(()));
    }
    (Ok(()), acknowledge(conversation, &verdict.reading, args.no_ack).await)
}

/// Every attempt names the same epoch, so that one that did arrive is not followed by another.
async fn name(
    client: &Client,
    sandbox: &str,
    call: Call,
    epoch: Minted,
    mark: Option<Mark>,
) -> Result<Named, ClientError> {
    let resume = Resume {
        epoch: epoch.id,
        number: epoch.number,
        paused: call.paused,
        sandbox: sandbox.to_owned(),
        at: unix_now(),
        mark,
        requested: call.requested,
        boot: call.boot,
    };
    let before = RefCell::new(None);
    let (conversation, reading) = client
        .retrying(|| async {
            let mut conversation = client.converse().await?;
            let welcome = conversation.welcome();
            // An attempt that arrived has renamed it already.
            if welcome.epoch.id != resume.epoch {
                before.replace(welcome.sandbox.clone());
            }
            let reading = conversation.resume(resume.clone()).await?;
            Ok((conversation, reading))
        })
        .await?;
    Ok(Named { conversation, reading, clone_of: before.take().filter(|before| before != sandbox) })
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
