//! `/proc/kpageflags`: counts pages that virtio-mem or a balloon has marked offline.

use super::file::{KernelError, KernelFile};
use super::iomem::Span;

/// `KPF_OFFLINE` of `Documentation/admin-guide/mm/pagemap.rst`.
const KPF_OFFLINE: u64 = 1 << 23;
/// Bytes of one page's flags.
const WORD: u64 = 8;
/// Read at once: pages that stay the agent's own once they were written to.
const CHUNK_BYTES: usize = 16 << 10;

/// Counts the `KPF_OFFLINE` pages in `spans`.
///
/// # Errors
/// The file cannot be read, or ends before a span does.
pub fn count_offline(file: &KernelFile, spans: &[Span], page_size: u64) -> Result<u64, KernelError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offline = 0;
    for span in spans {
        let mut word = span.start.div_ceil(page_size);
        let end = span.end / page_size;
        while word < end {
            let wanted = (end - word).saturating_mul(WORD).min(chunk.len() as u64);
            let buffer = chunk.get_mut(..usize::try_from(wanted).unwrap_or(0)).unwrap_or_default();
            let offset = usize::try_from(word.saturating_mul(WORD)).unwrap_or(usize::MAX);
            let read = file.read_at(buffer, offset)?;
            let (words, _) = buffer.get(..read).unwrap_or_default().as_chunks::<8>();
            if words.is_empty() {
                return Err(file.parse_error(format!("ends at page {word}, before page {end}")));
            }
            let hits = words.iter().filter(|word| u64::from_ne_bytes(**word) & KPF_OFFLINE != 0).count();
            offline += hits as u64;
            word += words.len() as u64;
        }
    }
    Ok(offline)
}
