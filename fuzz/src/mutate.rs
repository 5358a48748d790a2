//! Changes to JSON that leave it JSON: bytes that are changed at random are
//! mostly refused by the parser, and what lies behind it is never reached.
//!
//! Half of the time the fuzzer's own way is left to it.

use serde_json::{Value, json};

/// Random numbers of a small state (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// The first `choices` bytes of an input are no JSON; what follows is a document,
/// or lines of which some are `data: ` and a document.
pub fn mutated(input: &[u8], choices: usize, seed: u32) -> Option<Vec<u8>> {
    let mut dice = Dice(u64::from(seed) * 0x9E37_79B9 + 1);
    if dice.below(2) == 0 {
        return None;
    }
    let (head, text) = input.split_at_checked(choices)?;
    let text = std::str::from_utf8(text).ok()?;
    let changed = match serde_json::from_str::<Value>(text) {
        Ok(mut value) => {
            change(&mut value, &mut dice);
            value.to_string()
        }
        Err(_) => change_lines(text, &mut dice)?,
    };
    Some([head, changed.as_bytes()].concat())
}

fn change_lines(text: &str, dice: &mut Dice) -> Option<String> {
    let mut frames: Vec<String> = text.split("\n\n").map(str::to_owned).collect();
    let one = dice.below(frames.len());
    let two = dice.below(frames.len());
    match dice.below(8) {
        0 => drop(frames.remove(one)),
        1 => frames.insert(two, frames[one].clone()),
        2 => frames.swap(one, two),
        _ => {
            let frame = &frames[one];
            let at = frame.find("data: ")? + "data: ".len();
            let mut value: Value = serde_json::from_str(&frame[at..]).ok()?;
            change(&mut value, dice);
            frames[one] = format!("{}{value}", &frame[..at]);
        }
    }
    Some(frames.join("\n\n"))
}

fn change(value: &mut Value, dice: &mut Dice) {
    for _ in 0..=dice.below(3) {
        let mut paths = Vec::new();
        pointers(value, String::new(), &mut paths);
        let path = &paths[dice.below(paths.len())];
        let other = &paths[dice.below(paths.len())];
        let donor = value.pointer(other).cloned().unwrap_or_default();
        let Some(node) = value.pointer_mut(path) else {
            return;
        };
        match (dice.below(6), node) {
            (0 | 1, Value::Object(members)) if !members.is_empty() => {
                let name = members.keys().nth(dice.below(members.len()));
                let name = name.cloned().unwrap_or_default();
                members.shift_remove(&name);
            }
            (0, Value::Array(items)) if !items.is_empty() => {
                items.remove(dice.below(items.len()));
            }
            (1, Value::Array(items)) if !items.is_empty() => {
                let copy = items[dice.below(items.len())].clone();
                items.insert(dice.below(items.len()), copy);
            }
            (2, Value::Array(items)) if items.len() > 1 => {
                let (one, two) = (dice.below(items.len()), dice.below(items.len()));
                items.swap(one, two);
            }
            (2 | 3, Value::Object(members)) => {
                let name = other.rsplit('/').next().unwrap_or_default().to_owned();
                members.insert(name, donor);
            }
            (3, Value::Array(items)) => items.push(donor),
            (4, node) => *node = donor,
            (_, node) => *node = odd(dice),
        }
    }
}

fn pointers(value: &Value, path: String, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, inner) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(inner, format!("{path}/{name}"), out);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                pointers(inner, format!("{path}/{index}"), out);
            }
        }
        _ => {}
    }
    out.push(path);
}

fn odd(dice: &mut Dice) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(4097),
        json!(u64::MAX),
        json!(1.5),
        json!(""),
        json!(" "),
        json!("x\n\n\u{1F642}\"\\\u{0}"),
        json!("é"),
        json!("END"),
        json!("<think>"),
        json!("</think>"),
        json!("```json\n"),
        json!("{\"a\":"),
        json!("auto"),
        json!("none"),
        json!("text"),
        json!("data:image/png;base64,AA=="),
        json!("https://a/b"),
        json!([]),
        json!({}),
        json!([[]]),
        json!({ "type": "text", "text": "x" }),
    ];
    values[dice.below(values.len())].clone()
}
