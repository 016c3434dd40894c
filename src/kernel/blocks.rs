//! `/sys/devices/system/memory`: the blocks Linux hotplugs memory in, and which of them are online.

use super::file::{KernelError, list, read_once, sorted};
use super::iomem::Span;
use crate::units::Bytes;
use std::path::Path;

/// All memory blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// `block_size_bytes` (hexadecimal in the file).
    pub block_size: Bytes,
    /// Each block.
    pub blocks: Vec<Block>,
}

/// One memory block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Block {
    /// Its addresses.
    pub span: Span,
    /// `state` is `online`; one that is on its way is not.
    pub online: bool,
}

impl Blocks {
    /// Reads the size and the state of every block.
    ///
    /// # Errors
    /// The directory or the block size is missing or makes no sense. A block that went away meanwhile is left out.
    pub fn read(sys: &Path) -> Result<Self, KernelError> {
        let directory = sys.join("devices/system/memory");
        let size_path = directory.join("block_size_bytes");
        let text = read_once(&size_path)?;
        let size = u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let size = size.filter(|size| size.is_power_of_two() && Bytes(*size) <= Bytes::PHYSICAL_MAX);
        let Some(size) = size else {
            return Err(KernelError::Parse { path: size_path, what: format!("no block size: {text:?}") });
        };
        let mut blocks = Vec::new();
        for name in list(&directory)? {
            let Some(index) = name.strip_prefix("memory").and_then(|index| index.parse::<u64>().ok()) else {
                continue;
            };
            let start = index.checked_mul(size).filter(|start| *start < Bytes::PHYSICAL_MAX.0);
            // Beyond 4 PiB there is none, whatever the name says.
            let Some(start) = start else { continue };
            let Ok(state) = read_once(directory.join(&name).join("state")) else { continue };
            let span = Span { start, end: start.saturating_add(size) };
            blocks.push(Block { span, online: state == "online" });
        }
        Ok(Self { block_size: Bytes(size), blocks: sorted(blocks) })
    }
}
