//! Lines of a name and a value, as meminfo, vmstat, stat and cpu.stat have them.

/// The value on the first line whose first word is `name`.
pub(super) fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let line = text.split(|byte| *byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?;
        rest.first().is_some_and(u8::is_ascii_whitespace).then_some(rest)
    })?;
    std::str::from_utf8(line).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_name_is_looked_for() {
        let text = b"cpu0 9\ncpu  1 2\nMemTotal:   409736 kB\nbad \xFF\n";
        assert_eq!(field(text, "cpu"), Some("1 2"));
        assert_eq!(field(text, "MemTotal:"), Some("409736 kB"));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(field(text, "bad"), None);
        assert_eq!(field(b"", "cpu"), None);
    }
}
