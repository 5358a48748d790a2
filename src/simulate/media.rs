//! OpenAI's other endpoints: embeddings, speech, transcriptions, images. What
//! they return is small, valid and always the same.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Usage};
use super::ask::Ask;
use super::script::{CREATED, Script, pretty};

/// A PNG of one transparent pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
const DIMENSIONS: usize = 1536;
const DIMENSION_LIMIT: usize = 8192;
const INPUT_LIMIT: usize = 2048;
const IMAGE_LIMIT: usize = 10;
/// Pieces in which speech is sent.
const AUDIO_PIECES: usize = 8;

/// A body that is not always JSON.
#[derive(Debug)]
pub(super) struct Media {
    pub(super) content_type: &'static str,
    pub(super) script: Script,
}

impl Media {
    fn json(value: &Value) -> Self {
        Self::of("application/json", pretty(value))
    }

    fn of(content_type: &'static str, body: Vec<u8>) -> Self {
        Self {
            content_type,
            script: Script::whole(body),
        }
    }

    fn events(script: Script) -> Self {
        Self {
            content_type: "text/event-stream; charset=utf-8",
            script,
        }
    }
}

/// One vector for each input.
pub(super) fn embeddings(ask: &Ask, model: &str, usage: &Usage) -> Media {
    let inputs = match ask.value("input") {
        Some(Value::Array(inputs)) if !inputs.iter().all(Value::is_number) => inputs,
        Some(input) => vec![input],
        None => Vec::new(),
    };
    let dimensions = ask.count("dimensions").unwrap_or(DIMENSIONS);
    let base64 = ask.text("encoding_format").as_deref() == Some("base64");
    let data: Vec<Value> = inputs
        .iter()
        .take(INPUT_LIMIT)
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), dimensions.min(DIMENSION_LIMIT));
            let embedding = match base64 {
                true => json!(
                    STANDARD.encode(
                        vector
                            .iter()
                            .flat_map(|x| x.to_le_bytes())
                            .collect::<Vec<u8>>()
                    )
                ),
                false => json!(vector),
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    Media::json(&json!({
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": usage.input, "total_tokens": usage.input},
    }))
}

/// Silence, as audio or as events.
pub(super) fn speech(ask: &Ask, usage: &Usage) -> Media {
    let format = ask.text("response_format").unwrap_or_default();
    let content_type = match format.as_str() {
        "wav" => "audio/wav",
        "pcm" => "audio/pcm",
        "opus" => "audio/ogg",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        _ => "audio/mpeg",
    };
    let pieces = audio(&format);
    if ask.text("stream_format").as_deref() != Some("sse") {
        let mut script = Script {
            frames: pieces,
            ..Script::default()
        };
        script.closes();
        return Media {
            content_type,
            script,
        };
    }
    let mut script = Script::default();
    for piece in pieces {
        let audio = STANDARD.encode(piece);
        script.event(None, &json!({"type": "speech.audio.delta", "audio": audio}));
    }
    script.closes();
    let used = json!({
        "input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": usage.total(),
    });
    script.event(None, &json!({"type": "speech.audio.done", "usage": used}));
    Media::events(script)
}

/// The text of the answer, said to have been heard.
pub(super) fn transcription(ask: &Ask, answer: &Answer) -> Media {
    let text = answer.whole_text();
    let usage = &answer.usage;
    let used = json!({
        "type": "tokens",
        "input_tokens": usage.input,
        "input_token_details": {"text_tokens": 0, "audio_tokens": usage.input},
        "output_tokens": usage.output,
        "total_tokens": usage.total(),
    });
    if ask.flag("stream") {
        return transcription_events(answer, &text, &used);
    }
    match ask.text("response_format").as_deref() {
        Some("text") => Media::of("text/plain; charset=utf-8", format!("{text}\n").into()),
        Some("srt") => Media::of(
            "text/plain; charset=utf-8",
            format!("1\n00:00:00,000 --> 00:00:01,000\n{}\n\n", text.trim()).into(),
        ),
        Some("vtt") => Media::of(
            "text/vtt; charset=utf-8",
            format!(
                "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\n{}\n\n",
                text.trim()
            )
            .into(),
        ),
        Some("verbose_json") => Media::json(&json!({
            "task": "transcribe", "language": "english", "duration": 1.0, "text": text,
            "segments": [{
                "id": 0, "seek": 0, "start": 0.0, "end": 1.0, "text": text, "tokens": [],
                "temperature": 0.0, "avg_logprob": -0.1, "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            }],
            "usage": {"type": "duration", "seconds": 1},
        })),
        _ => Media::json(&json!({"text": text, "usage": used})),
    }
}

fn transcription_events(answer: &Answer, text: &str, used: &Value) -> Media {
    let mut script = Script::default();
    for piece in &answer.text {
        script.event(
            None,
            &json!({"type": "transcript.text.delta", "delta": piece}),
        );
    }
    script.closes();
    script.event(
        None,
        &json!({"type": "transcript.text.done", "text": text, "usage": used}),
    );
    Media::events(script)
}

/// As many pixels as were asked for.
pub(super) fn images(ask: &Ask, usage: &Usage, edit: bool) -> Media {
    let used = json!({
        "input_tokens": usage.input,
        "input_tokens_details": {"image_tokens": 0, "text_tokens": usage.input},
        "output_tokens": usage.output,
        "total_tokens": usage.total(),
    });
    if ask.flag("stream") {
        return image_events(ask, &used, edit);
    }
    let image = match ask.text("response_format").as_deref() {
        Some("url") => json!({"url": "https://images.invalid/pixel.png"}),
        _ => json!({"b64_json": PIXEL}),
    };
    let count = ask.count("n").unwrap_or(1).min(IMAGE_LIMIT);
    Media::json(&json!({
        "created": CREATED,
        "background": "opaque",
        "data": vec![image; count],
        "output_format": "png",
        "quality": "low",
        "size": "1024x1024",
        "usage": used,
    }))
}

fn image_events(ask: &Ask, used: &Value, edit: bool) -> Media {
    let family = if edit {
        "image_edit"
    } else {
        "image_generation"
    };
    let mut script = Script::default();
    let event = |kind: &str| {
        json!({
            "type": kind, "b64_json": PIXEL, "created_at": CREATED, "size": "1024x1024",
            "quality": "low", "background": "opaque", "output_format": "png",
        })
    };
    let partial = format!("{family}.partial_image");
    for index in 0..ask.count("partial_images").unwrap_or(0).min(3) {
        let mut data = event(&partial);
        data["partial_image_index"] = index.into();
        script.event(Some(&partial), &data);
    }
    script.closes();
    let completed = format!("{family}.completed");
    let mut data = event(&completed);
    data["usage"] = used.clone();
    script.event(Some(&completed), &data);
    Media::events(script)
}

/// A vector of length one that depends on the text alone.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut vector: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
        })
        .collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

/// Silence: a sound WAV file, bare samples, or MPEG layer III frames.
fn audio(format: &str) -> Vec<Vec<u8>> {
    const SAMPLES: usize = 4800;
    let data_length = (SAMPLES * 2 * AUDIO_PIECES) as u32;
    match format {
        "wav" => {
            let mut header = Vec::with_capacity(44);
            header.extend_from_slice(b"RIFF");
            header.extend_from_slice(&(36 + data_length).to_le_bytes());
            header.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
            header.extend_from_slice(&24_000_u32.to_le_bytes());
            header.extend_from_slice(&48_000_u32.to_le_bytes());
            header.extend_from_slice(b"\x02\0\x10\0data");
            header.extend_from_slice(&data_length.to_le_bytes());
            let mut pieces = vec![header];
            pieces.resize(AUDIO_PIECES + 1, vec![0; SAMPLES * 2]);
            pieces
        }
        "pcm" => vec![vec![0; SAMPLES * 2]; AUDIO_PIECES],
        _ => {
            // 128 kbit/s, 44.1 kHz, mono, no CRC: 417 bytes a frame.
            let mut frame = vec![0; 417];
            frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0xc0]);
            vec![frame.repeat(4); AUDIO_PIECES]
        }
    }
}
