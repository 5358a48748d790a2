//! Legacy completions through chat.

use super::*;

fn reply(include_usage: bool) -> Reply {
    Reply {
        id: "abc".into(),
        model: "m".into(),
        upstream_model: "u".into(),
        account: "a".into(),
        created: 7,
        include_usage,
        ..Reply::plain(Protocol::Completions, Protocol::Messages)
    }
}

fn read(body: &str) -> Result<(String, Sampling<'static>, Option<String>), Invalid> {
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let request = decode(tape.parse(body).unwrap(), &mut notes)?;
    let text = match &request.turns[0].parts[0] {
        Part::Text(text) => text.text.to_plain_string(),
        other => format!("{other:?}"),
    };
    let sampling = Sampling {
        max_output: request.sampling.max_output,
        logprobs: request.sampling.logprobs,
        top_logprobs: request.sampling.top_logprobs,
        n: request.sampling.n,
        ..Sampling::default()
    };
    Ok((text, sampling, notes.header()))
}

#[test]
fn a_prompt_is_what_the_user_says() {
    let (text, sampling, notes) = read(r#"{"model":"m","prompt":["once \n upon"]}"#).unwrap();
    assert_eq!(text, "once \n upon");
    assert_eq!(sampling.max_output, Some(16));
    assert_eq!(notes, None);
    let (_, sampling, notes) = read(
        r#"{"model":"m","prompt":"x","max_tokens":5,"logprobs":3,"suffix":"y","best_of":4,"echo":false,"n":2}"#,
    )
    .unwrap();
    assert_eq!(
        (
            sampling.max_output,
            sampling.logprobs,
            sampling.top_logprobs,
            sampling.n
        ),
        (Some(5), true, Some(3), Some(2))
    );
    assert_eq!(notes.as_deref(), Some("dropped:suffix;dropped:best_of"));
}

#[test]
fn what_a_chat_can_not_grant_is_refused_by_name() {
    for (body, param) in [
        (r#"{"model":"m","prompt":"x","echo":true}"#, "echo"),
        (r#"{"model":"m"}"#, "prompt"),
        (r#"{"model":"m","prompt":["a","b"]}"#, "prompt"),
        (r#"{"model":"m","prompt":[1,2]}"#, "prompt"),
        (r#"{"model":"m","prompt":""}"#, "prompt"),
        (r#"{"prompt":"x"}"#, "model"),
    ] {
        assert_eq!(
            read(body).unwrap_err().param.as_deref(),
            Some(param),
            "{body}"
        );
    }
}

#[test]
fn an_answer_is_its_text() {
    let token = r#"{"token":"a","logprob":-0.5,"top_logprobs":[{"token":"a","logprob":-0.5},{"token":"b","logprob":-1.25}]}"#;
    let response = Response {
        choices: vec![Choice {
            parts: vec![
                Part::Reasoning(crate::protocol::ir::Thought::default()),
                Part::Text(Text::new(Str::new("a\n"))),
            ],
            finish: Some(Finish::Length),
            logprobs: vec![Raw::parse(token).unwrap(), Raw::parse(token).unwrap()],
        }],
        ..Response::default()
    };
    let mut out = BytesMut::new();
    encode(&response, &reply(false), &mut out);
    let wanted = concat!(
        r#"{"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":[{"text":"a\n","index":0,"#,
        r#""logprobs":{"tokens":["a","a"],"token_logprobs":[-0.5,-0.5],"#,
        r#""top_logprobs":[{"a":-0.5,"b":-1.25},{"a":-0.5,"b":-1.25}],"text_offset":[0,1]},"finish_reason":"length"}],"#,
        r#""usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0},"#,
        r#""completion_tokens_details":{"reasoning_tokens":0}}}"#
    );
    assert_eq!(std::str::from_utf8(&out).unwrap(), wanted);
}

#[test]
fn a_stream_is_text_and_nothing_else() {
    let mut encoder = Encoder::new(&reply(true));
    let mut out = BytesMut::new();
    let (choice, part) = (0, 0);
    for delta in [
        Delta::Start {
            id: None,
            model: None,
        },
        Delta::PartStart {
            choice,
            part,
            kind: PartKind::Reasoning,
        },
        Delta::Text {
            choice,
            part,
            text: Str::new("hidden"),
        },
        Delta::PartEnd { choice, part },
        Delta::PartStart {
            choice,
            part: 1,
            kind: PartKind::Text,
        },
        Delta::Text {
            choice,
            part: 1,
            text: Str::new("hi"),
        },
        Delta::PartEnd { choice, part: 1 },
        Delta::Finish {
            choice,
            finish: Finish::Stop,
        },
        Delta::End,
        Delta::Text {
            choice,
            part: 1,
            text: Str::new("late"),
        },
    ] {
        encoder.delta(delta, &mut out);
    }
    let head =
        r#"data: {"id":"cmpl-abc","object":"text_completion","created":7,"model":"m","choices":["#;
    let wanted = [
        format!(
            r#"{head}{{"text":"hi","index":0,"logprobs":null,"finish_reason":null}}],"usage":null}}"#
        ),
        format!(
            r#"{head}{{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}}],"usage":null}}"#
        ),
        format!(
            r#"{head}],"usage":{{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{{"cached_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0}}}}}}"#
        ),
        "data: [DONE]".to_owned(),
    ];
    let text = std::str::from_utf8(&out).unwrap();
    assert_eq!(text.trim_end().split("\n\n").collect::<Vec<_>>(), wanted);
}
