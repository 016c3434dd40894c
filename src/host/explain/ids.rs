//! What the ids of samples tell: who wrote them, and in which order.

/// An id as far as its last number, and that number: `host-3:17` is (`host-3:`, 17).
pub(super) fn divide(id: &str) -> (&str, Option<u64>) {
    let stem = id.trim_end_matches(|digit: char| digit.is_ascii_digit());
    (stem, id.get(stem.len()..).and_then(|number| number.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_stem_and_a_number() {
        assert_eq!(divide("sb-1/s17"), ("sb-1/s", Some(17)));
        assert_eq!(divide("17"), ("", Some(17)));
        assert_eq!(divide("abc"), ("abc", None));
        assert_eq!(divide("a99999999999999999999999"), ("a", None));
    }
}
