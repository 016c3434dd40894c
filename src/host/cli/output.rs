//! Standard output and error of a command: what they can show, and writing that may fail.

use crate::host::error::ClientError;
use crate::host::table::Look;
use crate::host::vmm::VmmError;
use std::io::{self, IsTerminal, Write};

/// Standard output.
pub(super) struct Output {
    terminal: bool,
    color: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, color: terminal && colors_wanted() }
    }

    /// Whether a person looks at it.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What a table may use now; a terminal changes its size at any time.
    pub(super) fn look(&self) -> Look {
        Look { color: self.color, width: self.size().map(|(columns, _)| columns) }
    }

    /// Columns and rows of the terminal.
    pub(super) fn size(&self) -> Option<(u16, u16)> {
        if !self.terminal {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
    }

    /// Writes all of it at once, so that a reader sees whole lines.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.bytes(text.as_bytes())
    }

    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.text(&format!("{line}\n"))
    }
}

/// What went wrong with one target: the target, the cause, and what may be done about it.
pub(super) fn complain(error: &ClientError) {
    let hint = error.cause.hint().map(|hint| format!(" ({hint})"));
    complaint(&format!("{error}{}", hint.unwrap_or_default()));
}

/// The same of a VMM.
pub(super) fn complain_of_vmm(error: &VmmError) {
    let hint = error.cause.hint().map(|hint| format!(" ({hint})"));
    complaint(&format!("{error}{}", hint.unwrap_or_default()));
}

/// One line on standard error, in one write.
pub(super) fn complaint(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = io::stderr().write_all(format!("guestmeter: {text}\n").as_bytes());
}

/// <https://no-color.org>: any value but the empty one.
fn colors_wanted() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !refused && !dumb
}
