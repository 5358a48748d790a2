//! Errors in the words and shapes of each vendor: as a body of their own and
//! as an event inside a stream.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::route::{Denied, Vendor};
use super::script::{IDENTIFIER, Script, compact, pretty, spaced};

/// An error to be told.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) message: String,
    pub(super) param: Option<Cow<'static, str>>,
    pub(super) code: Option<&'static str>,
    /// Seconds until a retry may succeed, as Google tells them in the body.
    pub(super) retry_seconds: Option<String>,
}

impl Failure {
    /// The error that goes with a status.
    pub(super) fn of_status(status: u16) -> Self {
        let message = match status {
            400 => "The request was not understood.",
            401 => "The credential is not valid.",
            402 => "The balance is used up.",
            403 => "The credential may not do this.",
            404 => "The model does not exist.",
            408 | 504 => "The request took too long.",
            409 => "The request is in conflict with another.",
            413 => "The request is too large.",
            429 => "Rate limit reached. Please slow down.",
            503 | 529 => "The service is overloaded. Please try again later.",
            _ => "An error occurred while processing the request.",
        };
        let code = match status {
            401 => Some("invalid_api_key"),
            402 => Some("insufficient_quota"),
            404 => Some("model_not_found"),
            429 => Some("rate_limit_exceeded"),
            _ => None,
        };
        Self {
            status,
            message: message.to_owned(),
            param: None,
            code,
            retry_seconds: None,
        }
    }

    /// A request that can't be served as it is.
    pub(super) fn invalid(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self {
            message: message.into(),
            param: param.map(Cow::Borrowed),
            ..Self::of_status(400)
        }
    }

    /// A field that must be there and isn't.
    pub(super) fn missing(vendor: Vendor, field: &'static str) -> Self {
        let message = match vendor {
            Vendor::OpenAi => format!("Missing required parameter: '{field}'."),
            Vendor::Anthropic => format!("{field}: Field required"),
            Vendor::Google => {
                format!("* GenerateContentRequest.{field}: {field} is not specified\n")
            }
        };
        Self {
            code: Some("missing_required_parameter"),
            ..Self::invalid(message, Some(field))
        }
    }

    /// A credential that is absent or refused.
    pub(super) fn denied(vendor: Vendor, denied: Denied) -> Self {
        let header = match vendor {
            Vendor::OpenAi => "Authorization",
            Vendor::Anthropic => "x-api-key",
            Vendor::Google => "x-goog-api-key",
        };
        let (message, code) = match denied {
            Denied::Missing => (format!("No API key: header {header} is required."), None),
            Denied::Wrong => (
                format!("Incorrect API key in {header}."),
                Some("invalid_api_key"),
            ),
        };
        Self {
            message,
            code,
            ..Self::of_status(401)
        }
    }

    /// The body of an error response.
    pub(super) fn body(&self, vendor: Vendor) -> Vec<u8> {
        let value = self.value(vendor);
        match vendor {
            Vendor::OpenAi | Vendor::Google => pretty(&value),
            Vendor::Anthropic => compact(&value),
        }
    }

    /// Adds the error as the last event of a stream.
    pub(super) fn end_chat(&self, script: &mut Script) {
        script.event(None, &self.value(Vendor::OpenAi));
    }

    /// Adds the error as the last event of a Messages stream.
    pub(super) fn end_messages(&self, script: &mut Script) {
        script.event(Some("error"), &self.value(Vendor::Anthropic));
    }

    /// Adds the error as the last event of a Gemini stream.
    pub(super) fn end_gemini(&self, script: &mut Script, sse: bool) {
        let data = self.value(Vendor::Google);
        let frame = match sse {
            true => [b"data: ", spaced(&data).as_slice(), b"\r\n\r\n"].concat(),
            false => {
                let separator: &[u8] = match script.frames.is_empty() {
                    true => b"[",
                    false => b",\r\n",
                };
                [separator, pretty(&data).as_slice(), b"]"].concat()
            }
        };
        script.frames.push(frame);
    }

    /// The error as a JSON value.
    pub(super) fn value(&self, vendor: Vendor) -> Value {
        match vendor {
            Vendor::OpenAi => json!({"error": {
                "message": self.message,
                "type": openai_type(self.status),
                "param": self.param,
                "code": self.code,
            }}),
            Vendor::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic_type(self.status), "message": self.message},
                "request_id": format!("req_{IDENTIFIER}"),
            }),
            Vendor::Google => self.google_value(),
        }
    }

    fn google_value(&self) -> Value {
        let mut error = json!({
            "code": self.status,
            "message": self.message,
            "status": google_status(self.status),
        });
        if let Some(seconds) = &self.retry_seconds {
            error["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": format!("{seconds}s"),
            }]);
        } else if self.status == 401 {
            error["details"] = json!([{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }]);
        }
        json!({"error": error})
    }
}

/// The status of an error inside a stream where none was asked for.
pub(super) fn stream_status(vendor: Vendor) -> u16 {
    match vendor {
        Vendor::OpenAi => 500,
        Vendor::Anthropic => 529,
        Vendor::Google => 503,
    }
}

/// `error.type` of OpenAI.
pub(super) fn openai_type(status: u16) -> &'static str {
    match status {
        402 => "insufficient_quota",
        429 => "requests",
        300..=499 => "invalid_request_error",
        _ => "server_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        300..=499 => "invalid_request_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        300..=498 => "INVALID_ARGUMENT",
        502 | 503 | 529 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INTERNAL",
    }
}

/// The page that a proxy in front of a vendor shows.
pub(super) fn page(status: u16) -> Vec<u8> {
    let title = match status {
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        200 => "Welcome",
        _ => "Error",
    };
    format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
         <center><h1>{title}</h1></center>\r\n<hr><center>simulated</center>\r\n\
         </body>\r\n</html>\r\n"
    )
    .into_bytes()
}
