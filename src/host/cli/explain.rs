//! `explain`: why the two books of a sandbox differ, by name.

mod document;
mod text;

use super::Outcome;
use super::books::{DbArgs, WindowArgs};
use super::error::CliError;
use super::output::Output;
use super::usage::read_tiers;
use crate::host::explain::lines::read;
use crate::host::explain::{Books, Question, explain};
use crate::host::reconcile::Policy;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Explain why the two books of a sandbox differ
///
/// Lays the host's book beside the guest's, and names the cause of each stretch in which they differ: late or partial
/// plug, cap, rounding, rollback, duplicate, missing row and others, each with the seconds and GiB·s it comes to, guest
/// minus host. The exit code is 1 where there is something to explain.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Whose books
    #[arg(long)]
    sandbox: String,
    #[command(flatten)]
    window: WindowArgs,
    /// A price table (TOML): memory that is not in it is named
    #[arg(long, value_name = "FILE")]
    tiers: Option<PathBuf>,
    /// Take the books from a file of JSON lines, as `ledger export` writes them, and not from a ledger
    #[arg(long, value_name = "FILE")]
    books: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    db: DbArgs,
}

pub(super) async fn run(args: ExplainArgs, output: &mut Output) -> Result<Outcome, CliError> {
    if args.window.from >= args.window.to {
        return Err(CliError::Usage("--to must be later than --from".to_owned()));
    }
    let now = args.window.now();
    let mut books = match &args.books {
        Some(path) => of_file(path, &args.sandbox)?,
        None => of_ledger(&args).await?,
    };
    if let Some(path) = &args.tiers {
        books.tiers_mib = read_tiers(path)?.memory_sizes().map(|memory| memory.0).collect();
    }
    let question = Question::new(args.window.from, args.window.to, now, &Policy::default());
    let explained = explain(&mut books, &question);
    if args.json {
        output.line(&document::json(&books, &question, &explained)?)?;
    } else {
        output.text(&text::text(&books, &question, &explained, output.look()))?;
    }
    Ok(if explained.agrees() { Outcome::Fine } else { Outcome::Found })
}

fn of_file(path: &Path, sandbox: &str) -> Result<Books, CliError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| CliError::Open { path: name.clone(), error })?;
    Ok(read(BufReader::new(file), &name, sandbox)?)
}

async fn of_ledger(args: &ExplainArgs) -> Result<Books, CliError> {
    let ledger = args.db.ask().await?;
    let books = Books::stored(&ledger, &args.sandbox, args.window.from, args.window.to).await;
    ledger.close().await;
    Ok(books?)
}
