//! `replay`: recorded observations through the meter, for a person or a program.

use super::Outcome;
use super::args::ReplayArgs;
use super::error::CliError;
use super::output::Output;
use crate::host::replay::replay;
use crate::host::{json, table};
use crate::units::Nanos;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

pub(super) fn run(args: &ReplayArgs, output: &mut Output) -> Result<Outcome, CliError> {
    let name = args.file.display().to_string();
    let input = open(&args.file).map_err(|error| CliError::Open { path: name.clone(), error })?;
    let json = args.json || !output.is_terminal();
    let mut slices = BufWriter::new(io::stdout().lock());
    let usage = replay(input, &name, args.tick.map(Nanos::from), |event, slice| {
        if !args.slices {
            return Ok(());
        }
        let line = if json { json::slice(event, slice)? } else { table::slice(event, slice) };
        writeln!(slices, "{line}")
    })?;
    slices.flush()?;
    drop(slices);
    if json {
        output.line(&json::usage(&usage)?)?;
    } else {
        output.text(&table::usage(&usage, output.look()))?;
    }
    Ok(Outcome::Fine)
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory, not a trace"));
    }
    Ok(Box::new(BufReader::new(file)))
}
