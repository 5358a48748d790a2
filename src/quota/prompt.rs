//! How much of a request's body is text: pictures and sound in base64 are most
//! of the bytes of a body and few of its tokens.

use bytes::Bytes;

/// A body up to this size is all taken for text.
const SMALL: usize = 4 * 1024;
/// Places of a larger body that are looked at.
const SAMPLES: usize = 64;
/// Bytes that are looked at in each: text has a space, a quotation mark or a
/// letter of another script in as many.
const SAMPLE: usize = 96;

/// Bytes of the body that are text, roughly; looks at no more than 6 KB of it.
#[must_use]
pub fn text_bytes(frames: &[Bytes]) -> u64 {
    let size: usize = frames.iter().map(Bytes::len).sum();
    if size <= SMALL {
        return size as u64;
    }
    let step = size / SAMPLES;
    let mut text = 0_u64;
    let mut rest = frames.iter();
    let mut frame: &[u8] = rest.next().map_or(&[], |frame| frame);
    let mut before = 0;
    for number in 0..SAMPLES {
        let at = number * step;
        while at >= before + frame.len() {
            before += frame.len();
            let Some(next) = rest.next() else { break };
            frame = next;
        }
        let from = at.saturating_sub(before).min(frame.len());
        let sample = &frame[from..frame.len().min(from + SAMPLE)];
        text += u64::from(!is_encoded(sample));
    }
    size as u64 * text / SAMPLES as u64
}

fn is_encoded(sample: &[u8]) -> bool {
    sample.len() >= SAMPLE / 2
        && sample.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &str, size: usize) -> Vec<Bytes> {
        let pieces = body.as_bytes().chunks(size);
        pieces.map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn a_picture_is_hardly_any_text_and_a_book_is_nothing_else() {
        let picture = "iVBORw0KGgoAAAANSUhEUgAA/9j+".repeat(40_000);
        let words = "The quick brown fox jumps over the lazy dog. ".repeat(10_000);
        let chinese = "敏捷的棕色狐狸跳过了懒狗".repeat(10_000);
        for size in [16_384, 1_000_000, usize::MAX / 2] {
            let body = format!("{{\"model\":\"m\",\"image\":\"{picture}\"}}");
            let text = text_bytes(&split(&body, size));
            assert!(text <= body.len() as u64 / 10, "{text} of {}", body.len());
            for body in [&words, &chinese] {
                assert_eq!(
                    text_bytes(&split(body, size)),
                    body.len() as u64,
                    "all of it"
                );
            }
            let half = format!("{words}{}", &picture[..words.len()]);
            let text = text_bytes(&split(&half, size));
            let part = text as f64 / half.len() as f64;
            assert!((0.4..=0.6).contains(&part), "{part}");
        }
    }

    #[test]
    fn a_small_body_is_text() {
        assert_eq!(text_bytes(&split(&"A".repeat(SMALL), 100)), SMALL as u64);
        assert_eq!(text_bytes(&[]), 0);
    }
}
