//! Exact fractions as decimal text, rounded once, half away from zero. No floats: what is shown is what was counted.

/// Below this a remainder times 10^9 fits.
const DENOMINATOR_BITS: u32 = 96;

/// `numerator / denominator` with at most `places` (up to 9) decimals, without trailing zeros; `None` of nothing.
pub(crate) fn quotient(numerator: u128, denominator: u128, places: u32) -> Option<String> {
    // What is shifted away is less than one part in 2^64 of either.
    let excess = (u128::BITS - denominator.leading_zeros()).saturating_sub(DENOMINATOR_BITS);
    let (numerator, denominator) = (numerator >> excess, denominator >> excess);
    let scale = 10_u128.checked_pow(places.min(9))?;
    let mut whole = numerator.checked_div(denominator)?;
    let rest = numerator.checked_rem(denominator)?;
    let mut fraction = rest.checked_mul(scale)?.checked_add(denominator / 2)?.checked_div(denominator)?;
    if fraction == scale {
        (whole, fraction) = (whole.checked_add(1)?, 0);
    }
    if fraction == 0 {
        return Some(whole.to_string());
    }
    let digits = usize::try_from(places.min(9)).ok()?;
    let text = format!("{whole}.{fraction:0digits$}");
    Some(text.trim_end_matches('0').to_owned())
}

/// A minus before a magnitude, but never before zero.
pub(crate) fn signed(negative: bool, magnitude: String) -> String {
    if negative && magnitude != "0" { format!("-{magnitude}") } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(
            (signed(true, "0.5".to_owned()), signed(true, "0".to_owned())),
            ("-0.5".to_owned(), "0".to_owned())
        );
        assert_eq!(signed(false, "0.5".to_owned()), "0.5");
    }

    #[test]
    fn fractions_round_once() {
        for (numerator, denominator, places, text) in [
            (0, 7, 9, "0"),
            (6, 3, 9, "2"),
            (1, 3, 3, "0.333"),
            (2, 3, 3, "0.667"),
            (1, 8, 2, "0.13"),
            (1999, 1000, 2, "2"),
            (u128::MAX, 1, 9, "340282366920938463463374607431768211455"),
            (u128::MAX, u128::MAX, 6, "1"),
            (u128::MAX / 2, u128::MAX, 6, "0.5"),
            (u128::MAX / 100 * 13, u128::MAX, 6, "0.13"),
        ] {
            assert_eq!(quotient(numerator, denominator, places).as_deref(), Some(text));
        }
        assert_eq!(quotient(1, 0, 2), None);
    }
}
