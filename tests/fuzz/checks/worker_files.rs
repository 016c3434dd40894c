//! Any text: a configuration, a descriptor or a price table that holds what it promises, or an error that can be shown.

use guestmeter::host::tiers::Tiers;
use guestmeter::host::worker::{Config, Descriptor};
use guestmeter::units::Bytes;

/// The first byte says which file it is.
pub fn check(input: &[u8]) {
    let Some((&which, text)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    match which % 3 {
        0 => match text.parse::<Config>() {
            Ok(config) => {
                assert!(config.api.tcp.is_none_or(|address| address.ip().is_loopback()));
                assert!(config.api.tcp.is_none() || config.api.token_file.is_some());
                assert!((1..=4096).contains(&config.poll.concurrency));
                assert!(config.poll.timeout <= config.poll.interval);
            }
            Err(error) => shown(&error.to_string()),
        },
        1 => match text.parse::<Descriptor>() {
            Ok(descriptor) => {
                assert!((1..=128).contains(&descriptor.sandbox.len()) && !descriptor.sandbox.contains('/'));
                assert!(!descriptor.org.is_empty());
                let base = descriptor.base_memory_mib;
                assert!(base > 0 && base <= Bytes::PHYSICAL_MAX.0 >> 20);
            }
            Err(error) => shown(&error.to_string()),
        },
        _ => match Tiers::parse(text) {
            Ok(tiers) => {
                for memory in tiers.memory_sizes() {
                    assert_eq!(tiers.find(memory).map(|tier| tier.memory), Some(memory));
                }
            }
            Err(error) => shown(&error.to_string()),
        },
    }
}

fn shown(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() < 20_000, "{} characters", text.chars().count());
}
