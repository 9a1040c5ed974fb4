//! The bytes of a frame: variable-length integers and length-prefixed text, written and read strictly.
//! `frame` calls it, and audit for the bytes of its leaves.
//! Reading never panics and never allocates more than the input is long.

use crate::rules;

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// They are not what they must be.
    #[error("{what} at byte {offset}: {fault}")]
    Fault {
        /// The field that was being read.
        what: &'static str,
        /// Where, from the start of the message.
        offset: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A later build wrote them, by rules that this one does not know.
    #[error("it is written {0}")]
    Newer(rules::Newer),
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// One byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Bytes whose number the reader knows.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An unsigned number, seven bits a byte, low bits first (LEB128).
    pub fn uint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(low_bits(value) | 0x80);
            value >>= 7;
        }
        self.bytes.push(low_bits(value));
    }

    /// A large unsigned number, likewise.
    pub fn uint_wide(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push(low_bits(u64::try_from(value & 0x7f).unwrap_or(0)) | 0x80);
            value >>= 7;
        }
        self.bytes.push(low_bits(u64::try_from(value).unwrap_or(0)));
    }

    /// A signed number, zigzag (0, −1, 1, −2, … are 0, 1, 2, 3, …), so that small magnitudes are short.
    pub fn int(&mut self, value: i64) {
        self.uint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    /// How many items follow.
    pub fn len(&mut self, len: usize) {
        self.uint(u64::try_from(len).expect("a length fits 64 bits"));
    }

    /// Text with its length before it.
    pub fn text(&mut self, text: &str) {
        self.len(text.len());
        self.raw(text.as_bytes());
    }

    /// How many bytes there are so far.
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

/// Takes values off a buffer.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// An error about the field `what` at the present place.
    pub fn fault(&self, what: &'static str, fault: &'static str) -> CodecError {
        CodecError::Fault { what, offset: self.offset, fault }
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        let byte = self.bytes.get(self.offset).copied();
        self.offset += usize::from(byte.is_some());
        byte.ok_or_else(|| self.fault(what, "the message ends early"))
    }

    /// So many bytes.
    pub fn raw(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], CodecError> {
        let rest = &self.bytes[self.offset..];
        if rest.len() < len {
            return Err(self.fault(what, "the message ends early"));
        }
        self.offset += len;
        Ok(&rest[..len])
    }

    /// So many bytes, as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], CodecError> {
        let mut array = [0; N];
        array.copy_from_slice(self.raw(what, N)?);
        Ok(array)
    }

    /// See [`Writer::uint`].
    pub fn uint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fault(what, "the number is above 64 bits"))
    }

    /// See [`Writer::uint_wide`].
    pub fn uint_wide(&mut self, what: &'static str) -> Result<u128, CodecError> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u128::from(byte & 0x7f);
            if shift > 121 && bits >> (128 - shift) != 0 {
                return Err(self.fault(what, "the number is above 128 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.fault(what, "the number has no end"))
    }

    /// See [`Writer::int`].
    pub fn int(&mut self, what: &'static str) -> Result<i64, CodecError> {
        let value = self.uint(what)?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A number that fits the type asked for.
    pub fn narrow<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, CodecError> {
        let value = self.uint(what)?;
        T::try_from(value).map_err(|_| self.fault(what, "the number is out of range"))
    }

    /// How many items follow; an item is at least one byte long, so a lie is noticed before memory is taken.
    pub fn len(&mut self, what: &'static str) -> Result<usize, CodecError> {
        let len: usize = self.narrow(what)?;
        if len > self.bytes.len() - self.offset {
            return Err(self.fault(what, "more items than bytes"));
        }
        Ok(len)
    }

    /// See [`Writer::text`].
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, CodecError> {
        let len = self.len(what)?;
        std::str::from_utf8(self.raw(what, len)?).map_err(|_| self.fault(what, "the text is not UTF-8"))
    }

    /// Everything has been read.
    pub fn finish(self) -> Result<(), CodecError> {
        if self.offset == self.bytes.len() { Ok(()) } else { Err(self.fault("end", "bytes are left over")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_come_back(a in any::<u64>(), b in any::<u128>(), c in any::<i64>(), text in ".{0,40}") {
            let mut writer = Writer::default();
            writer.uint(a);
            writer.uint_wide(b);
            writer.int(c);
            writer.text(&text);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.uint("a"), Ok(a));
            prop_assert_eq!(reader.uint_wide("b"), Ok(b));
            prop_assert_eq!(reader.int("c"), Ok(c));
            prop_assert_eq!(reader.text("text"), Ok(text.as_str()));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while reader.text("text").and_then(|_| reader.int("number")).is_ok() {}
        }
    }
}
