//! Conversations put in order, whatever order they came in.

use super::*;
use crate::protocol::ir::Thought;
use crate::protocol::json::Raw;
use proptest::prelude::*;

const MESSAGES: Rules = Rules {
    mid_system: MidSystem::Hoist,
    merge: true,
    drop_blank: true,
    user_first: true,
    last_assistant: LastAssistant::Continue,
};

const CHAT: Rules = Rules {
    mid_system: MidSystem::InPlace,
    merge: false,
    drop_blank: false,
    user_first: false,
    last_assistant: LastAssistant::Keep,
};

fn request(turns: Vec<Turn<'static>>) -> Request<'static> {
    Request {
        model: Str::new("m"),
        turns,
        ..Request::of(Protocol::Chat)
    }
}

fn turn(role: Role, parts: Vec<Part<'static>>) -> Turn<'static> {
    Turn { role, parts, at: 0 }
}

fn user(parts: Vec<Part<'static>>) -> Turn<'static> {
    turn(Role::User, parts)
}

fn model(parts: Vec<Part<'static>>) -> Turn<'static> {
    turn(Role::Assistant, parts)
}

fn system(words: &str) -> Turn<'static> {
    turn(Role::System, vec![text(words)])
}

fn text(words: &str) -> Part<'static> {
    Part::Text(Text::new(Str::from(words.to_owned())))
}

fn call(id: &str) -> Part<'static> {
    Part::Call(Call {
        id: Str::from(id.to_owned()),
        name: Str::new("f"),
        namespace: None,
        arguments: Arguments::Object(Raw::EMPTY_OBJECT),
        opaque: None,
        cache: None,
    })
}

fn result(id: &str, words: &str) -> Part<'static> {
    Part::Result(ToolResult {
        id: Str::from(id.to_owned()),
        name: None,
        parts: vec![text(words)],
        is_error: false,
        custom: false,
        cache: None,
    })
}

/// A conversation on one line: `u:hello a:call(x) u:result(x=1)`.
fn show(arranged: &Arranged<'_, '_>) -> String {
    let turns = arranged.turns.iter().map(|turn| {
        let role = match turn.role {
            Role::User => "u",
            Role::Assistant => "a",
            Role::System => "s",
        };
        let parts: Vec<String> = turn.parts.iter().map(|part| show_part(part)).collect();
        format!("{role}:{}", parts.join("+"))
    });
    turns.collect::<Vec<_>>().join(" | ")
}

fn show_part(part: &Part<'_>) -> String {
    match part {
        Part::Text(text) => text.text.to_plain_string(),
        Part::Call(call) => format!("call({})", call.id.plain()),
        Part::Result(result) => {
            let words: Vec<String> = result.parts.iter().map(show_part).collect();
            let mark = if result.is_error { "!" } else { "" };
            format!("result({}={mark}{})", result.id.plain(), words.join(","))
        }
        Part::Reasoning(_) => "reasoning".to_owned(),
        other => format!("{other:?}"),
    }
}

fn arranged(turns: Vec<Turn<'static>>, rules: &Rules) -> (String, String) {
    let request = request(turns);
    let mut notes = Notes::new();
    let arranged = arrange(&request, rules, &mut notes);
    (show(&arranged), notes.header().unwrap_or_default())
}

#[test]
fn results_stand_first_and_in_the_order_of_their_calls() {
    let turns = vec![
        user(vec![text("go")]),
        model(vec![text("I will"), call("a"), call("b")]),
        user(vec![result("b", "2")]),
        user(vec![result("a", "1")]),
        user(vec![text("well?")]),
    ];
    let (shown, notes) = arranged(turns.clone(), &MESSAGES);
    assert_eq!(
        shown,
        "u:go | a:I will+call(a)+call(b) | u:result(a=1)+result(b=2)+well?"
    );
    assert_eq!(notes, "");
    let (shown, _) = arranged(turns, &CHAT);
    assert_eq!(
        shown,
        "u:go | a:I will+call(a)+call(b) | u:result(a=1)+result(b=2) | u:well?"
    );
}

#[test]
fn a_call_without_a_result_gets_one_and_a_result_without_a_call_becomes_text() {
    let turns = vec![
        user(vec![text("go")]),
        model(vec![call("a"), call("b")]),
        user(vec![result("a", "1"), result("zz", "9")]),
        model(vec![call("c")]),
    ];
    let (shown, notes) = arranged(turns, &MESSAGES);
    assert_eq!(
        shown,
        "u:go | a:call(a)+call(b) | u:result(a=1)+result(b=!No result was provided.)+[tool result zz] 9 \
         | a:call(c) | u:result(c=!No result was provided.)"
    );
    assert_eq!(
        notes,
        "coerced:tool_result_without_call;injected:tool_result"
    );
}

#[test]
fn of_two_results_for_one_call_the_last_counts() {
    let turns = vec![
        user(vec![text("go")]),
        model(vec![call("a")]),
        user(vec![result("a", "1"), result("a", "2")]),
    ];
    let (shown, notes) = arranged(turns, &MESSAGES);
    assert_eq!(shown, "u:go | a:call(a) | u:result(a=2)");
    assert_eq!(notes, "dropped:tool_result_given_twice");
}

#[test]
fn calls_that_share_an_id_are_told_apart_and_paired_in_order() {
    let turns = vec![
        user(vec![text("go")]),
        model(vec![call("f"), call("f")]),
        user(vec![result("f", "1"), result("f", "2")]),
        model(vec![call("f")]),
        user(vec![result("f", "3")]),
    ];
    let (shown, notes) = arranged(turns, &MESSAGES);
    assert_eq!(
        shown,
        "u:go | a:call(f)+call(f_2) | u:result(f=1)+result(f_2=2) | a:call(f_3) | u:result(f_3=3)"
    );
    assert_eq!(notes, "");
}

#[test]
fn system_text_stays_where_it_may_and_is_moved_where_it_may_not() {
    let turns = || {
        vec![
            user(vec![text("go")]),
            model(vec![text("yes")]),
            system("be brief"),
            user(vec![text("on")]),
            system("be kind"),
        ]
    };
    let mut notes = Notes::new();
    let given = request(turns());
    let hoisted = arrange(&given, &MESSAGES, &mut notes);
    assert_eq!(show(&hoisted), "u:go | a:yes | u:on");
    let system: Vec<_> = hoisted
        .system
        .iter()
        .map(|block| block.text.plain())
        .collect();
    assert_eq!(system, ["be brief", "be kind"]);
    assert_eq!(notes.header().unwrap(), "coerced:system_hoisted");
    let first = notes.refuse(Protocol::Messages).unwrap_err();
    assert_eq!(first.param.as_deref(), Some("messages[0]"));
    let rules = Rules {
        mid_system: MidSystem::AfterUser,
        ..MESSAGES
    };
    let (shown, _) = arranged(turns(), &rules);
    assert_eq!(shown, "u:go | a:yes | u:on | s:be kind");
    let (shown, notes) = arranged(turns(), &CHAT);
    assert_eq!(shown, "u:go | a:yes | s:be brief | u:on | s:be kind");
    assert_eq!(notes, "");
}

#[test]
fn system_text_between_a_call_and_its_result_goes_behind_the_result() {
    let turns = vec![
        user(vec![text("go")]),
        model(vec![call("a")]),
        system("now"),
        user(vec![result("a", "1")]),
    ];
    let (shown, _) = arranged(turns, &CHAT);
    assert_eq!(shown, "u:go | a:call(a) | u:result(a=1) | s:now");
}

#[test]
fn what_is_empty_goes_and_neighbours_become_one() {
    let turns = vec![
        user(vec![text("one")]),
        model(vec![text("")]),
        user(vec![text(" \n")]),
        user(vec![text("two"), text("")]),
    ];
    let (shown, _) = arranged(turns.clone(), &MESSAGES);
    assert_eq!(shown, "u:one+two");
    let (shown, _) = arranged(turns, &CHAT);
    assert_eq!(shown, "u:one | u: \n | u:two");
    let empty_result = vec![model(vec![call("a")]), user(vec![result("a", "")])];
    let (shown, _) = arranged(empty_result, &CHAT);
    assert_eq!(shown, "a:call(a) | u:result(a=)");
}

#[test]
fn nothing_said_is_nothing_arranged() {
    let (shown, notes) = arranged(
        vec![user(vec![text("")]), model(vec![text(" ")])],
        &MESSAGES,
    );
    assert_eq!((shown.as_str(), notes.as_str()), ("", ""));
}

#[test]
fn the_first_and_the_last_turn_are_as_the_target_wants_them() {
    let turns = vec![model(vec![text("abc  ")])];
    let (shown, notes) = arranged(turns.clone(), &MESSAGES);
    assert_eq!(shown, "u:(continued) | a:abc   | u:Continue.");
    assert_eq!(notes, "injected:continue");
    let prefill = Rules {
        last_assistant: LastAssistant::Prefill,
        ..MESSAGES
    };
    let (shown, notes) = arranged(turns.clone(), &prefill);
    assert_eq!(
        (shown.as_str(), notes.as_str()),
        ("u:(continued) | a:abc", "")
    );
    let mut from_messages = request(turns);
    from_messages.origin = Protocol::Messages;
    let mut notes = Notes::new();
    let kept = arrange(&from_messages, &CHAT, &mut notes);
    assert_eq!(show(&kept), "a:abc  ");
    assert_eq!(notes.header().unwrap(), "dropped:prefill");
}

fn any_part() -> impl Strategy<Value = Part<'static>> {
    prop_oneof![
        "[a ]{0,2}".prop_map(|words| text(&words)),
        "[ab_2]{0,3}".prop_map(|id| call(&id)),
        ("[ab_2]{0,3}", "[r ]{0,2}").prop_map(|(id, words)| result(&id, &words)),
        Just(Part::Reasoning(Thought::default())),
        Just(Part::Reasoning(Thought {
            text: Str::new("hm"),
            ..Thought::default()
        })),
        "[r ]{0,1}".prop_map(|words| Part::Refusal(Str::from(words))),
    ]
}

fn any_turns() -> impl Strategy<Value = Vec<Turn<'static>>> {
    let role = prop_oneof![
        3 => Just(Role::User),
        3 => Just(Role::Assistant),
        1 => Just(Role::System),
    ];
    let turn = (role, proptest::collection::vec(any_part(), 0..5))
        .prop_map(|(role, parts)| turn(role, parts));
    proptest::collection::vec(turn, 0..10)
}

fn any_rules() -> impl Strategy<Value = Rules> {
    (0..3, any::<bool>(), any::<bool>(), any::<bool>(), 0..3).prop_map(
        |(system, merge, drop_blank, user_first, last)| Rules {
            mid_system: [MidSystem::InPlace, MidSystem::AfterUser, MidSystem::Hoist]
                [system as usize],
            merge,
            drop_blank,
            user_first,
            last_assistant: [
                LastAssistant::Keep,
                LastAssistant::Prefill,
                LastAssistant::Continue,
            ][last as usize],
        },
    )
}

/// The arranged conversation as a request of its own.
fn again(arranged: &Arranged<'_, 'static>) -> Request<'static> {
    let turns = arranged.turns.iter().map(|turn| Turn {
        role: turn.role,
        parts: turn
            .parts
            .iter()
            .map(|part| part.as_ref().clone())
            .collect(),
        at: turn.at,
    });
    let mut request = request(turns.collect());
    request.system = arranged
        .system
        .iter()
        .map(|block| block.as_ref().clone())
        .collect();
    request
}

fn calls(turn: &Arrangement<'_, '_>) -> Vec<String> {
    let id = |part: &Cow<'_, Part<'_>>| match part.as_ref() {
        Part::Call(call) => Some(call.id.to_plain_string()),
        _ => None,
    };
    turn.parts.iter().filter_map(id).collect()
}

/// The results at the head of a turn; results elsewhere are counted as `misplaced`.
fn results(turn: Option<&Arrangement<'_, '_>>) -> Vec<String> {
    let parts = turn.map_or(&[][..], |turn| &turn.parts);
    let id = |part: &Cow<'_, Part<'_>>| match part.as_ref() {
        Part::Result(result) => Some(result.id.to_plain_string()),
        _ => None,
    };
    let head: Vec<String> = parts.iter().map_while(id).collect();
    let all = parts.iter().filter_map(id).count();
    if all == head.len() {
        head
    } else {
        vec!["misplaced".to_owned()]
    }
}

proptest! {
    #[test]
    fn every_call_has_one_result_directly_behind_it_and_nothing_is_empty(
        turns in any_turns(), rules in any_rules(),
    ) {
        let request = request(turns);
        let arranged = arrange(&request, &rules, &mut Notes::new());
        let mut seen = std::collections::HashSet::new();
        for (at, turn) in arranged.turns.iter().enumerate() {
            prop_assert!(!turn.parts.is_empty());
            prop_assert!(turn.parts.iter().all(|part| !is_empty(part, &rules)));
            if turn.role == Role::Assistant {
                prop_assert_eq!(calls(turn), results(arranged.turns.get(at + 1)), "{}", show(&arranged));
                prop_assert!(results(Some(turn)).is_empty());
            } else {
                prop_assert!(calls(turn).is_empty());
            }
            let follows_calls = at > 0 && !calls(&arranged.turns[at - 1]).is_empty();
            prop_assert!(follows_calls || results(Some(turn)).is_empty());
            for id in calls(turn) {
                prop_assert!(seen.insert(id), "{}", show(&arranged));
            }
        }
        let roles: Vec<Role> = arranged.turns.iter().map(|turn| turn.role).collect();
        if rules.merge {
            prop_assert!(roles.windows(2).all(|pair| pair[0] != pair[1]));
        }
        if rules.last_assistant == LastAssistant::Continue {
            prop_assert!(roles.last() != Some(&Role::Assistant));
        }
        let system = roles.contains(&Role::System);
        prop_assert!(!system || rules.mid_system != MidSystem::Hoist);
    }

    #[test]
    fn what_is_arranged_stays_as_it_is(turns in any_turns(), rules in any_rules()) {
        let first = request(turns);
        let once = arrange(&first, &rules, &mut Notes::new());
        let second = again(&once);
        let mut notes = Notes::new();
        let twice = arrange(&second, &rules, &mut notes);
        prop_assert_eq!(show(&once), show(&twice));
        prop_assert!(notes.is_empty(), "{:?}", notes);
    }

    #[test]
    fn a_longer_conversation_begins_the_same(turns in any_turns(), more in any_turns()) {
        let mut short = turns.clone();
        short.push(user(vec![text("x")]));
        let mut long = short.clone();
        long.extend(more);
        let (short, long) = (request(short), request(long));
        let short = arrange(&short, &CHAT, &mut Notes::new());
        let long = arrange(&long, &CHAT, &mut Notes::new());
        // What is still open at the end of the shorter one may get its results.
        let closed = short.turns.iter().rposition(|turn| turn.role == Role::Assistant).unwrap_or(0);
        let head = |arranged: &Arranged<'_, '_>| show(&Arranged { system: Vec::new(), turns: arranged.turns[..closed].to_vec() });
        prop_assert_eq!(head(&short), head(&long));
    }
}
