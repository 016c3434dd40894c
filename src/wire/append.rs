//! Serializes behind what a buffer holds already: no second buffer, and no growth byte by byte.

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Room for most reports and states; what is larger makes its own.
const ROOM: usize = 512;

/// Appends `value`; on an error, a part of it may have been.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    out.reserve(ROOM);
    postcard::serialize_with_flavor(value, Append(out))
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> Result<(), postcard::Error> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> Result<(), postcard::Error> {
        Ok(())
    }
}
