//! How objects are written: a magic with the version, fields one after another, a checksum (XXH3, 128 bits).
//! Numbers are little-endian; texts and bytes stand behind their length. An object that does not read back
//! exactly is damage.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

const CHECKSUM_BYTES: usize = 16;

/// The kind of an object and the version of its format.
pub(super) type Magic = [u8; 8];

/// What is wrong with an object, as the end of a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken(pub(super) &'static str);

/// An object's checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checksum(pub(super) [u8; CHECKSUM_BYTES]);

impl Checksum {
    /// The checksum at the end of a whole object.
    pub(super) fn of_object(object: &[u8]) -> Self {
        object.last_chunk().map_or_else(Self::default, |checksum| Self(*checksum))
    }
}

/// Writes one object.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new(magic: Magic) -> Self {
        Self(magic.to_vec())
    }

    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.fixed(&number.to_le_bytes())
    }

    pub(super) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    /// Bytes until now.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Adds the checksum.
    pub(super) fn finish(mut self) -> Bytes {
        let checksum = xxh3_128(&self.0);
        self.0.extend_from_slice(&checksum.to_le_bytes());
        Bytes::from(self.0)
    }
}

/// Reads one object. What it returns shares the object's memory.
#[derive(Debug)]
pub(super) struct Reader(Bytes);

impl Reader {
    /// Checks an object's kind and checksum.
    pub(super) fn open(magic: Magic, object: &Bytes) -> Result<Self, Broken> {
        let (content, checksum) =
            object.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Broken("is too short"))?;
        let found = content.first_chunk::<8>().ok_or(Broken("is too short"))?;
        if xxh3_128(content).to_le_bytes() != *checksum {
            return Err(Broken("does not match its checksum"));
        }
        if *found != magic {
            return Err(Broken("has a format that this program does not know"));
        }
        Ok(Self(object.slice(magic.len()..content.len())))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.fixed::<1>()?[0])
    }

    pub(super) fn number(&mut self) -> Result<u64, Broken> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let bytes = self.take(N)?;
        Ok(*bytes.first_chunk().expect("as many bytes as were taken"))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Broken> {
        let length = usize::try_from(self.number()?).map_err(|_| Broken("has an impossible length in it"))?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Result<String, Broken> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Broken("has a name that is not text"))
    }

    /// A value that has a text form.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, Broken> {
        self.text()?.parse().map_err(|_| Broken("has a name that is not one"))
    }

    /// As many things as the number in front of them says.
    pub(super) fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Broken>,
    ) -> Result<Vec<T>, Broken> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(one(self)?);
        }
        Ok(list)
    }

    /// Nothing may be left.
    pub(super) fn end<T>(self, value: T) -> Result<T, Broken> {
        if self.0.is_empty() { Ok(value) } else { Err(Broken("is longer than what it says")) }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Broken> {
        if length > self.0.len() {
            return Err(Broken("ends too early"));
        }
        Ok(self.0.split_to(length))
    }
}
