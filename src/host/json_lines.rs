//! JSON Lines, one by one: of a bounded length, and in no other encoding.

use std::io::{self, BufRead, Read};

/// Why a line cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file cannot be read.
    #[error("reading: {0}")]
    Read(#[from] io::Error),
    /// No line of such a file is as long.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// It begins with one.
    #[error(transparent)]
    ByteOrderMark(#[from] ByteOrderMark),
}

/// What editors put before text to tell its encoding, which it names: RFC 8259, section 8.1, forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a byte-order mark ({0}) stands before the text: save it as UTF-8 without one")]
pub struct ByteOrderMark(&'static str);

/// The lines of `input`.
pub(super) struct JsonLines<R> {
    input: R,
    bytes_max: u64,
    text: Vec<u8>,
    /// Of the line last read, from 1.
    pub(super) number: u64,
    /// Read so far.
    pub(super) bytes: u64,
}

impl<R: BufRead> JsonLines<R> {
    pub(super) fn new(input: R, bytes_max: u64) -> Self {
        Self { input, bytes_max, text: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line without its end, which may be nothing; `None` behind the last one. An error is of the line `number`.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        self.number += 1;
        self.text.clear();
        let most = self.bytes_max.saturating_add(1);
        let read = self.input.by_ref().take(most).read_until(b'\n', &mut self.text)? as u64;
        self.bytes = self.bytes.saturating_add(read);
        if self.number == 1 {
            ByteOrderMark::refuse(&self.text)?;
        }
        if read > self.bytes_max {
            return Err(LineError::TooLong(self.bytes_max));
        }
        Ok((read > 0).then_some(self.text.trim_ascii_end()))
    }
}

impl ByteOrderMark {
    /// Refuses `bytes` that begin with one.
    pub(super) fn refuse(bytes: &[u8]) -> Result<(), Self> {
        match bytes {
            [0xef, 0xbb, 0xbf, ..] => Err(Self("UTF-8")),
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Err(Self("UTF-32")),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(Self("UTF-16")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_bounded_and_without_marks() {
        let mut lines = JsonLines::new(b"{}\r\n\n12345678\n123456789".as_slice(), 9);
        assert_eq!(lines.next().unwrap(), Some(b"{}".as_slice()));
        assert_eq!(lines.next().unwrap(), Some(b"".as_slice()));
        assert_eq!(lines.next().unwrap(), Some(b"12345678".as_slice()));
        assert_eq!(
            lines.next().unwrap(),
            Some(b"123456789".as_slice()),
            "nine bytes, as many as there may be"
        );
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!((lines.number, lines.bytes), (5, 23));
        let error = JsonLines::new(b"1234567890".as_slice(), 9).next().unwrap_err();
        assert_eq!(error.to_string(), "longer than 9 bytes");
    }

    #[test]
    fn a_mark_of_any_encoding_is_named() {
        let files: [(&[u8], _); 5] = [
            (b"\xef\xbb\xbf{}", "UTF-8"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"\xff\xfe\0\0{\0\0\0", "UTF-32"),
            (b"\0\0\xfe\xff\0\0\0{", "UTF-32"),
        ];
        for (bytes, encoding) in files {
            let error = JsonLines::new(bytes, 100).next().unwrap_err().to_string();
            assert!(error.contains(&format!("byte-order mark ({encoding})")), "{error}");
        }
    }
}
