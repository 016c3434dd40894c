//! `watch`: many targets until interrupted. A task for each keeps it connected; one place draws.

use super::Outcome;
use super::args::WatchArgs;
use super::error::CliError;
use super::output::{Output, complain};
use super::watch_order::{Column, name, sort};
use crate::host::client::{Client, Reading, TIMEOUT_DEFAULT};
use crate::host::error::ClientError;
use crate::host::json;
use crate::host::random::Backoff;
use crate::host::table::{self, FleetRow};
use crate::host::target::Target;
use crate::units::Nanos;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// News that wait to be shown; a full queue slows the readers, not memory.
const NEWS_MAX: usize = 64;
/// Ages in the table move on by themselves.
const REDRAW: Duration = Duration::from_millis(500);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// What became of one target.
type News = (usize, Result<Reading, ClientError>);

/// One target as it is shown.
struct Watched {
    target: Target,
    last: Option<Reading>,
    last_at: Instant,
    lost: Option<String>,
}

/// What of it is shown, and how.
struct Shown {
    /// None: all.
    sandboxes: Vec<String>,
    sort: Column,
}

impl Shown {
    fn has(&self, last: Option<&Reading>) -> bool {
        let named = last.and_then(name);
        self.sandboxes.is_empty() || named.is_some_and(|name| self.sandboxes.iter().any(|one| one == name))
    }
}

pub(super) async fn run(args: WatchArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let shown = Shown { sandboxes: args.sandbox, sort: args.sort };
    let targets: BTreeSet<Target> = args.targets.into_iter().collect();
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let mut watched = Vec::with_capacity(targets.len());
    for (index, target) in targets.into_iter().enumerate() {
        let client = Client::new(target.clone(), TIMEOUT_DEFAULT);
        tokio::spawn(follow(client, args.interval, index, sender.clone()));
        watched.push(Watched { target, last: None, last_at: Instant::now(), lost: None });
    }
    drop(sender);
    if output.is_terminal() && !args.json {
        draw(&mut watched, &mut news, output, &shown).await
    } else {
        append(&mut watched, &mut news, output, &shown, args.json).await
    }
}

/// Keeps one target connected; ends when nobody listens any more.
async fn follow(client: Client, interval: Duration, index: usize, news: mpsc::Sender<News>) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let ended = match client.watch(interval).await {
            Err(error) => error,
            Ok(mut watcher) => loop {
                match watcher.next().await {
                    Err(error) => break error,
                    Ok(reading) => {
                        backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
                        if news.send((index, Ok(reading))).await.is_err() {
                            return;
                        }
                    }
                }
            },
        };
        if news.send((index, Err(ended))).await.is_err() {
            return;
        }
        sleep(backoff.pause()).await;
    }
}

/// A line for each report; a target that goes away is told once, not at each attempt.
async fn append(
    watched: &mut [Watched],
    news: &mut mpsc::Receiver<News>,
    output: &mut Output,
    shown: &Shown,
    as_json: bool,
) -> Result<Outcome, CliError> {
    while let Some((index, what)) = news.recv().await {
        let Some(entry) = watched.get_mut(index) else { continue };
        match what {
            // It answers, as another.
            Ok(reading) if !shown.has(Some(&reading)) => entry.lost = None,
            Ok(reading) => {
                let line = if as_json { json::report(&reading)? } else { table::line(&reading) };
                entry.lost = None;
                output.line(&line)?;
            }
            Err(error) => {
                let cause = error.cause.to_string();
                if entry.lost.as_ref() != Some(&cause) {
                    complain(&error);
                    entry.lost = Some(cause);
                }
            }
        }
    }
    Ok(Outcome::Unreachable)
}

/// A table, redrawn over itself.
async fn draw(
    watched: &mut [Watched],
    news: &mut mpsc::Receiver<News>,
    output: &mut Output,
    shown: &Shown,
) -> Result<Outcome, CliError> {
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lines_drawn = 0;
    loop {
        tokio::select! {
            message = news.recv() => match message {
                None => return Ok(Outcome::Unreachable),
                Some((index, what)) => if let Some(entry) = watched.get_mut(index) { take(entry, what) },
            },
            now = redraw.tick() => {
                let text = table_text(watched, now, output, shown);
                // Up over the last table, and clear to the end of the screen.
                let back = if lines_drawn == 0 { String::new() } else { format!("\x1b[{lines_drawn}F\x1b[0J") };
                lines_drawn = text.lines().count();
                output.text(&format!("{back}{text}"))?;
            }
        }
    }
}

fn take(entry: &mut Watched, what: Result<Reading, ClientError>) {
    match what {
        Ok(reading) => {
            entry.last = Some(reading);
            entry.last_at = Instant::now();
            entry.lost = None;
        }
        Err(error) => entry.lost = Some(error.cause.to_string()),
    }
}

/// The table, cut to the height of the terminal: what has scrolled away cannot be redrawn.
fn table_text(watched: &[Watched], now: Instant, output: &Output, shown: &Shown) -> String {
    let mut rows: Vec<FleetRow<'_>> = watched
        .iter()
        .filter(|entry| shown.has(entry.last.as_ref()))
        .map(|entry| FleetRow {
            target: &entry.target,
            last: entry.last.as_ref(),
            lost: entry.lost.as_deref(),
            age: Nanos::from(now.saturating_duration_since(entry.last_at)),
        })
        .collect();
    sort(&mut rows, shown.sort);
    let text = table::fleet(&rows, output.look());
    let height = output.size().map_or(usize::MAX, |(_, rows)| usize::from(rows));
    let count = text.lines().count();
    if count < height {
        return text;
    }
    let kept = height.saturating_sub(2).max(1);
    let mut cut: String = text.lines().take(kept).map(|line| format!("{line}\n")).collect();
    cut.push_str(&format!("… {} more lines\n", count - kept));
    cut
}
