//! Integers that know their unit. Decides nothing; refuses to mix bytes with time.
//!
//! Every operator that exists has a meaning (bytes × time is byte·ns); those that do not, do not compile.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Mul;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $int:ty, $suffix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);

            /// The sum, or `None` past the type's end.
            #[must_use]
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// The difference, or `None` below zero.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }

            /// The sum, stopping at the type's end.
            #[must_use]
            pub fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, stopping at zero.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{}", $suffix), self.0)
            }
        }
    };
}

unit!(
    /// Memory, in bytes.
    Bytes, u64, " B"
);
unit!(
    /// A span or an instant of one named clock, in nanoseconds.
    Nanos, u64, " ns"
);
unit!(
    /// CPU entitlement: 1000 is one vCPU.
    MilliCpu, u64, " millicpu"
);
unit!(
    /// Memory as it is billed: whole binary megabytes.
    Mib, u64, " MiB"
);
unit!(
    /// Memory × time.
    ByteNanos, u128, " byte·ns"
);
unit!(
    /// Billed memory × time.
    MibNanos, u128, " MiB·ns"
);
unit!(
    /// CPU entitlement × time.
    MilliCpuNanos, u128, " millicpu·ns"
);

impl Bytes {
    /// One binary megabyte.
    pub const MIB: Self = Self(1 << 20);

    /// 4 PiB: what 52 physical address bits reach on x86-64 and arm64. More than this in a kernel file is garbage.
    pub const PHYSICAL_MAX: Self = Self(1 << 52);

    /// `mib` binary megabytes, stopping at the type's end.
    #[must_use]
    pub const fn mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }
}

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);

    /// `seconds` whole seconds, stopping at the type's end.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }
}

impl From<std::time::Duration> for Nanos {
    fn from(span: std::time::Duration) -> Self {
        Self(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for std::time::Duration {
    fn from(span: Nanos) -> Self {
        Self::from_nanos(span.0)
    }
}

impl Mul<Nanos> for Bytes {
    type Output = ByteNanos;

    /// Two `u64` factors never overflow a `u128`.
    fn mul(self, span: Nanos) -> ByteNanos {
        ByteNanos(u128::from(self.0) * u128::from(span.0))
    }
}

impl Mul<Nanos> for Mib {
    type Output = MibNanos;

    /// Two `u64` factors never overflow a `u128`.
    fn mul(self, span: Nanos) -> MibNanos {
        MibNanos(u128::from(self.0) * u128::from(span.0))
    }
}

impl Mul<Nanos> for MilliCpu {
    type Output = MilliCpuNanos;

    /// Two `u64` factors never overflow a `u128`.
    fn mul(self, span: Nanos) -> MilliCpuNanos {
        MilliCpuNanos(u128::from(self.0) * u128::from(span.0))
    }
}
