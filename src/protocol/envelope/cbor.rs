//! The little of CBOR (RFC 8949) that an envelope needs: one map of text to text.

/// Text strings.
const TEXT: u8 = 3 << 5;
/// Maps of a known length.
const MAP: u8 = 5 << 5;
/// More members than this are nothing of ours.
const MOST: u64 = 16;

/// Writes the fields that are there as a map.
pub(super) fn write(out: &mut Vec<u8>, fields: &[(&str, Option<&str>)]) {
    let present = fields.iter().filter(|(_, value)| value.is_some());
    head(out, MAP, present.count() as u64);
    for (name, value) in fields {
        if let Some(value) = value {
            text(out, name);
            text(out, value);
        }
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A major type and its length, in the shortest form.
fn head(out: &mut Vec<u8>, major: u8, length: u64) {
    let bytes = length.to_be_bytes();
    let (info, tail) = match length {
        0..=23 => (bytes[7], 8),
        24..=0xFF => (24, 7),
        0x100..=0xFFFF => (25, 6),
        0x1_0000..=0xFFFF_FFFF => (26, 4),
        _ => (27, 0),
    };
    out.push(major | info);
    out.extend_from_slice(bytes.get(tail..).unwrap_or_default());
}

/// Reads a map of text to text and nothing behind it; `None` for anything else.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<(&str, &str)>> {
    let (count, mut rest) = behead(bytes, MAP)?;
    if count > MOST {
        return None;
    }
    let mut fields = Vec::new();
    for _ in 0..count {
        let (name, behind) = take(rest)?;
        let (value, behind) = take(behind)?;
        fields.push((name, value));
        rest = behind;
    }
    rest.is_empty().then_some(fields)
}

fn take(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = behead(bytes, TEXT)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

fn behead(bytes: &[u8], major: u8) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    if first & 0b1110_0000 != major {
        return None;
    }
    let info = first & 0b1_1111;
    let size = match info {
        0..=23 => return Some((u64::from(info), rest)),
        24..=27 => 1 << (info - 24),
        _ => return None,
    };
    let (length, rest) = rest.split_at_checked(size)?;
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | u64::from(*byte));
    Some((length, rest))
}
