//! The endpoints besides the four protocols of conversation: paths, bodies,
//! forms.

use serde_json::json;

/// A request to one of them.
pub(crate) struct MediaAsk {
    /// Its name in usage records.
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
}

/// What stands between the parts of [`form`].
pub(crate) const BOUNDARY: &str = "----gateway-test-7MA4YWxkTrZu0gW";
const FORM: &str = "multipart/form-data; boundary=----gateway-test-7MA4YWxkTrZu0gW";

/// One request to each of them, for that model.
pub(crate) fn all(model: &str) -> Vec<MediaAsk> {
    let ask = |name, path, body: serde_json::Value| MediaAsk {
        name,
        path,
        content_type: "application/json",
        body: body.to_string().into_bytes(),
    };
    let post = |name, path, file: &str| MediaAsk {
        name,
        path,
        content_type: FORM,
        body: form(
            model,
            (file, "a.bin"),
            b"\x00\x01 --not-a-boundary \r\n\xff\xfe",
        ),
    };
    vec![
        ask(
            "completions",
            "/v1/completions",
            json!({"model": model, "prompt": "hello"}),
        ),
        ask(
            "embeddings",
            "/v1/embeddings",
            json!({"model": model, "input": "hello", "dimensions": 8}),
        ),
        ask(
            "speech",
            "/v1/audio/speech",
            json!({"model": model, "input": "hello", "voice": "alloy"}),
        ),
        ask(
            "images",
            "/v1/images/generations",
            json!({"model": model, "prompt": "a cat"}),
        ),
        post("images", "/v1/images/edits", "image"),
        post("transcriptions", "/v1/audio/transcriptions", "file"),
    ]
}

/// A form with a prompt, that model, and a file in a field and under a name.
pub(crate) fn form(model: &str, (field, file): (&str, &str), content: &[u8]) -> Vec<u8> {
    let mut form = Vec::new();
    let mut part = |head: &str, content: &[u8]| {
        form.extend_from_slice(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    };
    part(
        "Content-Disposition: form-data; name=\"prompt\"",
        b"name=\"model\" is not here",
    );
    part(
        &format!(
            "Content-Disposition: form-data; name=\"{field}\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream"
        ),
        content,
    );
    part(
        "content-disposition: form-data; name=\"model\"",
        model.as_bytes(),
    );
    part("Content-Disposition: form-data; name=\"language\"", b"de");
    form.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    form
}
