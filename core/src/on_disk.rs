//! On-disk structures, declared once with visible offsets.
//!
//! [`on_disk!`](crate::on_disk!) makes a plain struct, checks at compile time that its fields
//! lie in order inside the structure, parses and writes it, and keeps each field's offset and
//! meaning for `inspect`.

use crate::bytes::until_nul;

/// Byte order of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// A decoded value, for printing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Uint(u64),
    /// Raw bytes.
    Bytes(Vec<u8>),
    /// Several values.
    List(Vec<Value>),
    /// Text made by the format.
    Text(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Uint(n) if *n < 10 => write!(f, "{n}"),
            Value::Uint(n) => write!(f, "{n} ({n:#x})"),
            Value::Text(text) => f.write_str(text),
            Value::List(list) => {
                f.write_str("[")?;
                for (i, value) in list.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    match value {
                        Value::Uint(n) => write!(f, "{n:#x}")?,
                        other => write!(f, "{other}")?,
                    }
                }
                f.write_str("]")
            }
            Value::Bytes(bytes) => {
                let text = until_nul(bytes);
                let printable = !text.is_empty() && text.iter().all(|b| (0x20..0x7f).contains(b));
                if bytes.iter().all(|&b| b == 0) {
                    return write!(f, "{} zero bytes", bytes.len());
                }
                if printable && bytes[text.len()..].iter().all(|&b| b == 0) {
                    return write!(f, "{:?}", String::from_utf8_lossy(text));
                }
                bytes.iter().take(64).try_for_each(|b| write!(f, "{b:02x}"))?;
                if bytes.len() > 64 {
                    write!(f, "… ({} bytes)", bytes.len())?;
                }
                Ok(())
            }
        }
    }
}

/// A field of a structure that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldValue {
    /// Field name.
    pub name: String,
    /// Offset within the structure. Unit: bytes.
    pub offset: usize,
    /// Length. Unit: bytes.
    pub length: usize,
    /// What it holds.
    pub value: Value,
    /// What it means.
    pub meaning: String,
}

/// A type that can stand in an on-disk structure.
pub trait Field: Sized {
    /// Length on disk. Unit: bytes.
    const SIZE: usize;
    /// Reads it from exactly `SIZE` bytes.
    fn read(bytes: &[u8], endian: Endian) -> Self;
    /// Writes it to exactly `SIZE` bytes.
    fn write(&self, bytes: &mut [u8], endian: Endian);
    /// Its printable value.
    fn show(&self) -> Value;
    /// The printable value of several.
    fn show_all(items: &[Self]) -> Value {
        Value::List(items.iter().map(Field::show).collect())
    }
}

macro_rules! number {
    ($($ty:ty)*) => {$(
        impl Field for $ty {
            const SIZE: usize = size_of::<$ty>();
            fn read(bytes: &[u8], endian: Endian) -> Self {
                let mut raw = [0; size_of::<$ty>()];
                raw.copy_from_slice(bytes);
                match endian {
                    Endian::Little => <$ty>::from_le_bytes(raw),
                    Endian::Big => <$ty>::from_be_bytes(raw),
                }
            }
            fn write(&self, bytes: &mut [u8], endian: Endian) {
                bytes.copy_from_slice(&match endian {
                    Endian::Little => self.to_le_bytes(),
                    Endian::Big => self.to_be_bytes(),
                });
            }
            fn show(&self) -> Value { Value::Uint(u64::from(*self)) }
        }
    )*};
}
number!(u16 u32 u64);

impl Field for u8 {
    const SIZE: usize = 1;
    fn read(bytes: &[u8], _endian: Endian) -> Self {
        bytes[0]
    }
    fn write(&self, bytes: &mut [u8], _endian: Endian) {
        bytes[0] = *self;
    }
    fn show(&self) -> Value {
        Value::Uint(u64::from(*self))
    }
    fn show_all(items: &[Self]) -> Value {
        Value::Bytes(items.to_vec())
    }
}

impl<T: Field, const N: usize> Field for [T; N] {
    const SIZE: usize = T::SIZE * N;
    fn read(bytes: &[u8], endian: Endian) -> Self {
        std::array::from_fn(|i| T::read(&bytes[i * T::SIZE..(i + 1) * T::SIZE], endian))
    }
    fn write(&self, bytes: &mut [u8], endian: Endian) {
        for (item, room) in self.iter().zip(bytes.chunks_exact_mut(T::SIZE)) {
            item.write(room, endian);
        }
    }
    fn show(&self) -> Value {
        T::show_all(self)
    }
}

/// Declares an on-disk structure: size and byte order first, then `offset name: type`.
///
/// Offsets rise; gaps are bytes that the format leaves unnamed, which `write` does not touch.
#[macro_export]
macro_rules! on_disk {
    ($(#[doc = $doc:expr])* $(#[allow($allow:path)])?
     $vis:vis struct $name:ident ($size:literal bytes, $endian:ident) {
        $($(#[doc = $fdoc:expr])* $offset:literal $field:ident : $ty:ty,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name { $($(#[doc = $fdoc])* pub $field: $ty,)* }

        const _: () = {
            let mut end = 0usize;
            $(
                assert!($offset >= end, "fields overlap or are out of order");
                end = $offset + <$ty as $crate::on_disk::Field>::SIZE;
            )*
            assert!(end <= $size, "a field leaves the structure");
        };

        #[allow(dead_code)]
        impl $name {
            /// Length on disk. Unit: bytes.
            pub const SIZE: usize = $size;
            const ENDIAN: $crate::on_disk::Endian = $crate::on_disk!(@endian $endian);

            /// Reads the structure from the start of `bytes`, checking nothing but the length.
            ///
            /// Errors: `Corrupt` when `bytes` is too short.
            pub fn read(bytes: &[u8]) -> $crate::Result<Self> {
                let bytes = bytes.get(..Self::SIZE).ok_or_else(|| {
                    $crate::Error::corrupt(
                        $crate::Problem::Truncated,
                        format!("{} bytes are left of {}", bytes.len(), Self::SIZE),
                    ).at($crate::Place::new(stringify!($name)))
                })?;
                Ok(Self { $($field: {
                    const SIZE: usize = <$ty as $crate::on_disk::Field>::SIZE;
                    // In range: checked at compile time above.
                    #[allow(clippy::indexing_slicing)]
                    <$ty as $crate::on_disk::Field>::read(&bytes[$offset..$offset + SIZE], Self::ENDIAN)
                },)* })
            }

            /// Writes the named fields to the start of `bytes` and leaves the rest as it is.
            ///
            /// Errors: `Invalid` when `bytes` is too short.
            pub fn write(&self, bytes: &mut [u8]) -> $crate::Result<()> {
                let room = bytes.len();
                let bytes = bytes.get_mut(..Self::SIZE).ok_or_else(|| {
                    $crate::Error::invalid(
                        $crate::Problem::Truncated,
                        format!("no room for {} bytes in {room}", Self::SIZE),
                    )
                })?;
                $({
                    const SIZE: usize = <$ty as $crate::on_disk::Field>::SIZE;
                    #[allow(clippy::indexing_slicing)]
                    $crate::on_disk::Field::write(
                        &self.$field, &mut bytes[$offset..$offset + SIZE], Self::ENDIAN);
                })*
                Ok(())
            }

            /// Every field with its offset, value and meaning, for `inspect`.
            pub fn fields(&self) -> Vec<$crate::on_disk::FieldValue> {
                vec![$($crate::on_disk::FieldValue {
                    name: stringify!($field).to_owned(),
                    offset: $offset,
                    length: <$ty as $crate::on_disk::Field>::SIZE,
                    value: $crate::on_disk::Field::show(&self.$field),
                    meaning: concat!("" $(, $fdoc)*).trim().to_owned(),
                },)*]
            }
        }
    };
    (@endian little_endian) => { $crate::on_disk::Endian::Little };
    (@endian big_endian) => { $crate::on_disk::Endian::Big };
}

#[cfg(test)]
mod tests {
    on_disk! {
        /// For the test.
        pub struct Sample (16 bytes, little_endian) {
            0x00 magic: [u8; 4],
            /// Unit: sectors.
            0x06 capacity: u32,
            0x0c pair: [u16; 2],
        }
    }

    #[test]
    fn fields_are_read_where_the_declaration_says() {
        let bytes = [1, 2, 3, 4, 99, 99, 0x10, 0, 0, 0x80, 99, 99, 5, 0, 6, 0];
        let sample = Sample::read(&bytes).unwrap();
        assert_eq!(sample, Sample { magic: [1, 2, 3, 4], capacity: 0x8000_0010, pair: [5, 6] });
        assert_eq!(sample.fields()[1].meaning, "Unit: sectors.");
        assert_eq!(sample.fields()[1].offset, 6);
    }

    #[test]
    fn writing_leaves_unnamed_bytes_alone() {
        let bytes = [1, 2, 3, 4, 99, 98, 0x10, 0, 0, 0x80, 97, 96, 5, 0, 6, 0];
        let mut out = bytes;
        let mut sample = Sample::read(&bytes).unwrap();
        sample.pair = [7, 8];
        sample.write(&mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4, 99, 98, 0x10, 0, 0, 0x80, 97, 96, 7, 0, 8, 0]);
    }

    #[test]
    fn too_few_bytes_are_truncated_not_a_panic() {
        assert_eq!(Sample::read(&[0; 15]).unwrap_err().problem(), crate::Problem::Truncated);
    }
}
