//! The hash of a run's inputs, by which a later program recognises a run of equal inputs.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_128;

use crate::frame::HEADER_LEN;

/// Hash of a run's inputs, in order: XXH3-128 of the headers of their frames. A header has the codec, the fingerprint of the types, and
/// the length and the XXH3-64 of its value, so that the values need not be hashed again: without optimization, that would take a
/// fifth of the time of their encoding.
///
/// It is compared only among the runs of one function. Two values of one length have the same header by accident with a probability
/// of 2^-64, and the hash of all headers adds nothing to it that counts. Nobody gains by making such values: only those who may write
/// to the store can submit there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputsHash(u128);

impl InputsHash {
    /// Parses the 32 hexadecimal digits of a hash.
    pub fn parse(digits: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_hash = digits.len() == 32 && digits.bytes().all(is_digit);
        u128::from_str_radix(digits, 16).ok().filter(|_| is_hash).map(Self)
    }

    /// Returns the upper half of the hash, which the name of an entry in the index has: it only selects the manifests to compare.
    pub fn upper_half(self) -> u64 {
        u64::try_from(self.0 >> 64).expect("the upper half has 64 bits")
    }
}

impl fmt::Display for InputsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for InputsHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InputsHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        Self::parse(&digits).ok_or_else(|| D::Error::custom("the hash of the inputs must have 32 hexadecimal digits"))
    }
}

/// Running hash of inputs.
#[derive(Clone, Default)]
pub struct InputsHasher(XxHash3_128);

impl InputsHasher {
    /// Adds the frame of the next input.
    pub fn add(&mut self, frame: &[u8]) {
        self.0.write(&frame[..HEADER_LEN]);
    }

    /// Returns the hash of all inputs so far.
    pub fn finish(&self) -> InputsHash {
        InputsHash(self.0.finish_128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Codec;
    use crate::fingerprint::Fingerprint;
    use crate::frame;

    #[test]
    fn hash_distinguishes_values_types_and_order() {
        let frame = |fingerprint: u64, value: u32| {
            let mut frame = Vec::new();
            let _ = frame::encode(Codec::Bincode, Fingerprint(fingerprint), &value, &mut frame).unwrap();
            frame
        };
        let hash = |frames: &[Vec<u8>]| {
            let mut hasher = InputsHasher::default();
            for frame in frames {
                hasher.add(frame);
            }
            hasher.finish()
        };
        let of = |values: &[u32]| hash(&values.iter().map(|value| frame(1, *value)).collect::<Vec<_>>());
        assert_eq!(of(&[1, 2, 3]), of(&[1, 2, 3]));
        for other in [&[1, 2][..], &[1, 3, 2], &[1, 2, 4], &[1, 2, 3, 3], &[1, 2, 70_000], &[]] {
            assert_ne!(of(&[1, 2, 3]), of(other), "{other:?}");
        }
        assert_ne!(hash(&[frame(1, 7)]), hash(&[frame(2, 7)]));
        // A change of the hash would be a change of the contract.
        assert_eq!(of(&[]).to_string(), "99aa06d3014798d86001c324468d497f");
    }

    #[test]
    fn hash_is_32_digits() {
        let hash = InputsHash(0xab);
        assert_eq!(hash.to_string(), format!("{}ab", "0".repeat(30)));
        assert_eq!(InputsHash::parse(&hash.to_string()), Some(hash));
        assert_eq!(serde_json::from_str::<InputsHash>(&format!("\"{hash}\"")).unwrap(), hash);
        for other in ["", "ab", &"A".repeat(32), &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(InputsHash::parse(other), None, "{other}");
        }
    }
}
