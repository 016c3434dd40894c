//! What a second costs: a table by memory, as configuration. Money is decimal and rounds once, at the end; what is not
//! in the table is named, never priced at nothing.

use super::ledger::{SizeTotal, Usage};
use super::toml_text::{self, TomlError};
use crate::units::{Mib, MilliCpu};
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;

/// The platform of the design's incident report, as an example of a table.
pub const EXAMPLE: &str = r#"currency = "USD"
decimals = 6

[[tier]]
memory_mib = 1024
cpu_millis = 1000
per_second = "1.080246914e-6"

[[tier]]
memory_mib = 4096
cpu_millis = 1000
per_second = "5.787037037e-6"

[[tier]]
memory_mib = 8192
cpu_millis = 2000
per_second = "1.350308642e-5"

[[tier]]
memory_mib = 16384
cpu_millis = 4000
per_second = "2.700617284e-5"
"#;

/// Digits after the point of a price; money itself has nine more while it is added up.
const PRICE_SCALE: u32 = 18;
const NANOS_SCALE: u32 = 9;

/// A price table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiers {
    currency: String,
    decimals: u32,
    tiers: Vec<Tier>,
}

/// One size on sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// What is looked up.
    pub memory: Mib,
    /// The CPU that comes with it.
    pub cpu: MilliCpu,
    /// For a second.
    pub per_second: Decimal,
}

/// What usage costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Of the table.
    pub currency: String,
    /// What is in the table, rounded half away from zero, once.
    pub total: Decimal,
    /// What is not: no part of the total.
    pub off_tier: Vec<SizeTotal>,
}

/// Why a text is no price table.
#[derive(Debug, thiserror::Error)]
pub enum TiersError {
    /// Not the TOML of one.
    #[error("not a price table: {0}")]
    Toml(#[from] TomlError),
    /// A price that is none.
    #[error("the price of {memory}: {fault}")]
    Price {
        /// Of which tier.
        memory: Mib,
        /// What is wrong.
        fault: &'static str,
    },
    /// Two prices for one size.
    #[error("two prices for {0}")]
    Twice(Mib),
    /// Nothing on sale.
    #[error("no [[tier]] in it")]
    Empty,
    /// Nobody counts money so finely.
    #[error("decimals: {0} is more than {PRICE_SCALE}")]
    Decimals(u32),
    /// More money than there are digits for.
    #[error("more money than can be counted")]
    TooMuch,
}

/// A table as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableFile {
    currency: String,
    decimals: u32,
    #[serde(default)]
    tier: Vec<TierFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierFile {
    memory_mib: u64,
    cpu_millis: u64,
    /// A string: TOML's numbers are binary floats.
    per_second: String,
}

impl Tiers {
    /// Reads a table like [`EXAMPLE`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TiersError> {
        let file: TableFile = toml_text::read(text)?;
        let tiers = file.tier.into_iter().map(tier).collect::<Result<_, _>>()?;
        Self::new(file.currency, file.decimals, tiers)
    }

    /// A table of these tiers; a bill rounds to `decimals`.
    ///
    /// # Errors
    /// As for [`Tiers::parse`].
    pub fn new(currency: String, decimals: u32, mut tiers: Vec<Tier>) -> Result<Self, TiersError> {
        if decimals > PRICE_SCALE {
            return Err(TiersError::Decimals(decimals));
        }
        if tiers.is_empty() {
            return Err(TiersError::Empty);
        }
        tiers.sort_by_key(|tier| tier.memory);
        for tier in &tiers {
            check(tier)?;
        }
        if let Some([tier, _]) = tiers.array_windows().find(|[a, b]| a.memory == b.memory) {
            return Err(TiersError::Twice(tier.memory));
        }
        Ok(Self { currency, decimals, tiers })
    }

    /// What is on sale.
    pub fn memory_sizes(&self) -> impl Iterator<Item = Mib> {
        self.tiers.iter().map(|tier| tier.memory)
    }

    /// The tier of this much memory; `None` is off tier.
    #[must_use]
    pub fn find(&self, memory: Mib) -> Option<&Tier> {
        self.tiers.iter().find(|tier| tier.memory == memory)
    }

    /// What this usage costs.
    ///
    /// # Errors
    /// More money than can be counted.
    pub fn bill(&self, usage: &Usage) -> Result<Bill, TiersError> {
        let mut off_tier = Vec::new();
        // Exact, in units of 10^-27: a price has 18 places, a nanosecond nine.
        let mut exact: i128 = 0;
        for total in &usage.by_size {
            let Some(tier) = self.find(total.size.memory) else {
                off_tier.push(*total);
                continue;
            };
            let price = mantissa(tier).ok_or(TiersError::TooMuch)?;
            let active = i128::try_from(total.active_ns).map_err(|_| TiersError::TooMuch)?;
            let cost = price.checked_mul(active).ok_or(TiersError::TooMuch)?;
            exact = exact.checked_add(cost).ok_or(TiersError::TooMuch)?;
        }
        Ok(Bill { currency: self.currency.clone(), total: self.round(exact)?, off_tier })
    }

    fn round(&self, exact: i128) -> Result<Decimal, TiersError> {
        let lost = PRICE_SCALE + NANOS_SCALE - self.decimals;
        let unit = 10_i128.checked_pow(lost).ok_or(TiersError::TooMuch)?;
        let rounded = exact.checked_add(unit / 2).ok_or(TiersError::TooMuch)? / unit;
        Decimal::try_from_i128_with_scale(rounded, self.decimals).map_err(|_| TiersError::TooMuch)
    }
}

fn tier(file: TierFile) -> Result<Tier, TiersError> {
    let memory = Mib(file.memory_mib);
    let price =
        Decimal::from_scientific(&file.per_second).or_else(|_| Decimal::from_str_exact(&file.per_second));
    let per_second =
        price.map_err(|_| TiersError::Price { memory, fault: "not a decimal number, such as \"1.5e-6\"" })?;
    Ok(Tier { memory, cpu: MilliCpu(file.cpu_millis), per_second })
}

fn check(tier: &Tier) -> Result<(), TiersError> {
    let fault = if tier.per_second <= Decimal::ZERO {
        "it must be more than nothing"
    } else if tier.per_second.normalize().scale() > PRICE_SCALE {
        "more than 18 places"
    } else if mantissa(tier).is_none() {
        "too large"
    } else {
        return Ok(());
    };
    Err(TiersError::Price { memory: tier.memory, fault })
}

/// The price in units of 10^-18.
fn mantissa(tier: &Tier) -> Option<i128> {
    let mut price =
        tier.per_second.round_dp_with_strategy(PRICE_SCALE, RoundingStrategy::MidpointAwayFromZero);
    price.rescale(PRICE_SCALE);
    (price.scale() == PRICE_SCALE).then(|| price.mantissa())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ledger::Size;

    fn used(rows: &[(u64, u128)]) -> Usage {
        let total = |&(memory, active_ns): &(u64, u128)| SizeTotal {
            size: Size { memory: Mib(memory), cpu: MilliCpu(1000) },
            active_ns,
        };
        Usage { by_size: rows.iter().map(total).collect() }
    }

    fn bill(rows: &[(u64, u128)]) -> Bill {
        Tiers::parse(EXAMPLE).unwrap().bill(&used(rows)).unwrap()
    }

    const SECOND: u128 = 1_000_000_000;

    #[test]
    fn the_example_prices_to_the_last_digit() {
        // 3600 s × 1.080246914e-6 = 0.0038888888904
        assert_eq!(bill(&[(1024, 3600 * SECOND)]).total.to_string(), "0.003889");
        let all = bill(&[(1024, SECOND), (4096, SECOND), (8192, SECOND), (16384, SECOND)]);
        assert_eq!(all.total.to_string(), "0.000047");
        // A month of a thousand of the largest: 2592000 × 1000 × 2.700617284e-5 = 70000.00000128
        assert_eq!(bill(&[(16384, 2_592_000 * 1000 * SECOND)]).total.to_string(), "70000.000001");
    }

    /// Each half rounds to nothing alone; together they are a millionth.
    #[test]
    fn money_rounds_once_at_the_end() {
        let half = 462_857_142; // 0.4629 s of the smallest is 0.0000005 USD
        assert_eq!(bill(&[(1024, half)]).total.to_string(), "0.000000");
        assert_eq!(bill(&[(1024, half), (1024, half)]).total.to_string(), "0.000001");
    }

    #[test]
    fn off_tier_is_named_and_no_part_of_the_total() {
        let bill = bill(&[(1024, 3600 * SECOND), (2048, SECOND), (0, SECOND)]);
        assert_eq!(bill.total.to_string(), "0.003889");
        assert_eq!(
            bill.off_tier.iter().map(|total| total.size.memory).collect::<Vec<_>>(),
            [Mib(2048), Mib(0)]
        );
    }

    #[test]
    fn the_largest_sums_are_refused_and_not_wrapped() {
        let tiers = Tiers::parse(EXAMPLE).unwrap();
        for active in [u128::MAX, u128::from(u64::MAX) << 40] {
            assert!(matches!(tiers.bill(&used(&[(16384, active)])), Err(TiersError::TooMuch)));
        }
        // A million sandboxes for a century.
        tiers.bill(&used(&[(16384, 3_155_760_000 * SECOND * 1_000_000)])).unwrap();
    }

    #[test]
    fn what_is_no_table_is_told_why() {
        let first = "per_second = \"1.080246914e-6\"";
        for (text, cause) in [
            ("".to_owned(), "missing field `currency`"),
            ("currency = \"USD\"\ndecimals = 2".to_owned(), "no [[tier]] in it"),
            (EXAMPLE.replace("decimals = 6", "decimals = 19"), "decimals: 19 is more than 18"),
            (EXAMPLE.replace("4096", "1024"), "two prices for 1024 MiB"),
            (
                EXAMPLE.replace(first, "per_second = \"0\""),
                "the price of 1024 MiB: it must be more than nothing",
            ),
            (EXAMPLE.replace(first, "per_second = \"-1\""), "more than nothing"),
            (EXAMPLE.replace(first, "per_second = \"1e-19\""), "more than 18 places"),
            (EXAMPLE.replace(first, "per_second = \"79228162514264337593543950335\""), "too large"),
            (EXAMPLE.replace(first, "per_second = \"free\""), "not a decimal number"),
            (EXAMPLE.replace(first, "per_second = 1.0"), "invalid type"),
            (EXAMPLE.replace("currency", "curency"), "unknown field `curency`"),
        ] {
            let error = Tiers::parse(&text).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }
}
