//! Commands in the guest, through the serial port that `guest/exec-server` listens on.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// What a command in the guest printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

pub(crate) struct Guest {
    reader: BufReader<UnixStream>,
    number: u64,
}

impl Guest {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream), number: 0 }
    }

    /// Runs `command`, one line for `sh`, and waits until it ends.
    pub(crate) fn run(&mut self, command: &str, timeout: Duration) -> Result<Output, String> {
        assert!(!command.contains('\n'), "the exec server takes one line: {command:?}");
        self.number += 1;
        self.exchange(command, timeout).map_err(|error| format!("in the guest, `{command}`: {error}"))
    }

    fn exchange(&mut self, command: &str, timeout: Duration) -> Result<Output, String> {
        let told = |error: std::io::Error| error.to_string();
        self.reader.get_ref().set_read_timeout(Some(timeout)).map_err(told)?;
        writeln!(self.reader.get_mut(), "{} {command}", self.number).map_err(told)?;
        let mut header = String::new();
        self.reader.read_line(&mut header).map_err(told)?;
        let fields = header.split_whitespace().map(str::parse::<i64>).collect::<Result<Vec<_>, _>>();
        let Ok([number, code, out, err]) = fields.as_deref() else {
            return Err(format!("the exec server answered {header:?}"));
        };
        assert_eq!(u64::try_from(*number), Ok(self.number), "an answer to another command");
        let stdout = self.take(*out)?;
        let stderr = String::from_utf8_lossy(&self.take(*err)?).into_owned();
        Ok(Output { code: i32::try_from(*code).unwrap_or(-1), stdout, stderr })
    }

    fn take(&mut self, length: i64) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
        self.reader.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}
