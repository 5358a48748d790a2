//! Path to route. Patterns are literals, `{name}` for one segment and
//! `{name..}` for the rest, slashes included, raw or as `%2F`.
//!
//! Paths are taken as they are: doubled slashes, dots and encoded dots are not
//! tidied up, they just match no pattern. A literal wins over a parameter, and
//! patterns without parameters are found by one look-up.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use http::Method;

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    /// The number of the route, in the order the routes were given.
    Found(usize, Params),
    /// The path exists, the method does not; these do.
    MethodNotAllowed(Vec<Method>),
    /// No such path.
    NotFound,
}

/// The parameters of a path, decoded, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// The parameter of that name; patterns guarantee that it is there.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map_or("", |(_, value)| value)
    }
}

#[derive(Debug)]
enum Segment {
    Literal(&'static str),
    One(&'static str),
    Rest(&'static str),
}

#[derive(Debug)]
struct Pattern {
    segments: Vec<Segment>,
    methods: Vec<(Method, usize)>,
}

/// The patterns of a server, ready to be matched.
#[derive(Debug, Default)]
pub struct Router {
    literal: HashMap<&'static str, Vec<(Method, usize)>, RandomState>,
    patterns: Vec<Pattern>,
}

impl Router {
    /// Builds a router; a route's number is its place among `routes`.
    #[must_use]
    pub fn new(routes: impl IntoIterator<Item = (Method, &'static str)>) -> Self {
        let mut router = Self::default();
        let mut by_pattern: HashMap<&'static str, usize> = HashMap::new();
        for (number, (method, pattern)) in routes.into_iter().enumerate() {
            if !pattern.contains('{') {
                router
                    .literal
                    .entry(pattern)
                    .or_default()
                    .push((method, number));
                continue;
            }
            let index = *by_pattern.entry(pattern).or_insert_with(|| {
                router.patterns.push(Pattern {
                    segments: segments(pattern),
                    methods: Vec::new(),
                });
                router.patterns.len() - 1
            });
            if let Some(known) = router.patterns.get_mut(index) {
                known.methods.push((method, number));
            }
        }
        router
    }

    /// The route of a method and a path. HEAD is answered by GET's.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Match {
        let literal = self.literal.get(path);
        let literal = literal.map(|methods| choose(methods, method, Params::default()));
        match literal {
            Some(Match::MethodNotAllowed(allowed)) => self.by_pattern(method, path, allowed),
            Some(found) => found,
            None => self.by_pattern(method, path, Vec::new()),
        }
    }

    /// The route of a path that is no literal's, or not with that method: what
    /// a parameter stands for may have a literal's name. `allowed` are the
    /// literal's methods.
    fn by_pattern(&self, method: &Method, path: &str, allowed: Vec<Method>) -> Match {
        // Among patterns that fit and have the method, the one with the most
        // literals is meant.
        let mut best: Option<((bool, usize), &Pattern, Params)> = None;
        for pattern in &self.patterns {
            let Some((literals, params)) = pattern.fit(path) else {
                continue;
            };
            let score = (has(&pattern.methods, method), literals);
            if best.as_ref().is_none_or(|(known, ..)| score > *known) {
                best = Some((score, pattern, params));
            }
        }
        let found = match best {
            Some((_, pattern, params)) => choose(&pattern.methods, method, params),
            None if allowed.is_empty() => Match::NotFound,
            None => Match::MethodNotAllowed(Vec::new()),
        };
        let Match::MethodNotAllowed(mut all) = found else {
            return found;
        };
        let literal: Vec<Method> = allowed
            .into_iter()
            .filter(|method| !all.contains(method))
            .collect();
        all.splice(0..0, literal);
        Match::MethodNotAllowed(all)
    }
}

fn has(methods: &[(Method, usize)], wanted: &Method) -> bool {
    let known = |wanted: &Method| methods.iter().any(|(method, _)| method == wanted);
    known(wanted) || (wanted == Method::HEAD && known(&Method::GET))
}

fn choose(methods: &[(Method, usize)], method: &Method, params: Params) -> Match {
    let wanted = |wanted: &Method| methods.iter().find(|(known, _)| known == wanted);
    let found = wanted(method).or_else(|| {
        (method == Method::HEAD)
            .then(|| wanted(&Method::GET))
            .flatten()
    });
    if let Some((_, number)) = found {
        return Match::Found(*number, params);
    }
    let mut allowed: Vec<Method> = methods.iter().map(|(method, _)| method.clone()).collect();
    if allowed.contains(&Method::GET) && !allowed.contains(&Method::HEAD) {
        allowed.push(Method::HEAD);
    }
    allowed.push(Method::OPTIONS);
    Match::MethodNotAllowed(allowed)
}

fn segments(pattern: &'static str) -> Vec<Segment> {
    let parts = pattern.strip_prefix('/').unwrap_or(pattern).split('/');
    parts
        .map(|part| {
            match part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            {
                None => Segment::Literal(part),
                Some(name) => match name.strip_suffix("..") {
                    Some(name) => Segment::Rest(name),
                    None => Segment::One(name),
                },
            }
        })
        .collect()
}

impl Pattern {
    /// The parameters, and how many literals matched, when the path fits. A
    /// rest may be followed by literals, which then end the path.
    fn fit(&self, path: &str) -> Option<(usize, Params)> {
        let mut left = path.strip_prefix('/')?;
        let mut params = Vec::new();
        let mut literals = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let last = index + 1 == self.segments.len();
            match segment {
                Segment::Rest(name) => {
                    let value = self.rest(index, left)?;
                    params.push((*name, percent_decode(value)?));
                    let tail = self.segments.len() - index - 1;
                    return Some((literals + tail, Params(params)));
                }
                Segment::Literal(literal) => {
                    left = step(left, last, |part| part == *literal)?.1;
                    literals += 1;
                }
                Segment::One(name) => {
                    let (part, rest) = step(left, last, |part| !part.is_empty())?;
                    params.push((*name, percent_decode(part)?));
                    left = rest;
                }
            }
        }
        Some((literals, Params(params)))
    }

    fn rest<'p>(&self, index: usize, left: &'p str) -> Option<&'p str> {
        let mut value = left;
        for segment in self.segments[index + 1..].iter().rev() {
            let Segment::Literal(literal) = segment else {
                return None;
            };
            value = value.strip_suffix(literal)?.strip_suffix('/')?;
        }
        (!value.is_empty()).then_some(value)
    }
}

/// Takes one segment; the last one must leave nothing behind.
fn step(left: &str, last: bool, accepts: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let (part, rest) = match left.split_once('/') {
        Some((part, rest)) if !last => (part, rest),
        None if last => (left, ""),
        _ => return None,
    };
    accepts(part).then_some((part, rest))
}

/// RFC 3986 percent-decoding; `None` when an escape is cut short or the result
/// is not UTF-8. A plus sign stays one.
#[must_use]
pub fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// The parameters of a query, in order. What can't be decoded stays as it is: it
/// must not look as if it had not been given.
#[must_use]
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let plain = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode(&text).unwrap_or(text)
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (plain(name), plain(value))
        })
        .collect()
}

/// Takes `acme/m:free:generateContent` apart at its last colon; a leading
/// `models/`, as some SDKs send it twice, goes.
#[must_use]
pub fn gemini_action(rest: &str) -> Option<(&str, &str)> {
    let (model, action) = rest.rsplit_once(':')?;
    let model = model.strip_prefix("models/").unwrap_or(model);
    (!model.is_empty() && !action.is_empty()).then_some((model, action))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        Router::new([
            (Method::GET, "/v1/models"),
            (Method::GET, "/v1/models/{model..}"),
            (Method::POST, "/v1/models/{model..}"),
            (Method::GET, "/v0/things/{id}"),
            (Method::DELETE, "/v0/things/{id}"),
            (Method::GET, "/v0/things/{id}/parts"),
            (Method::GET, "/v0/deep/{slug..}"),
            (Method::POST, "/v0/deep/{slug..}/check"),
        ])
    }

    fn found(method: Method, path: &str) -> Option<(usize, Vec<String>)> {
        match router().find(&method, path) {
            Match::Found(number, params) => Some((
                number,
                params.0.into_iter().map(|(_, value)| value).collect(),
            )),
            _ => None,
        }
    }

    #[test]
    fn parameters_are_decoded_and_a_rest_keeps_its_slashes() {
        assert_eq!(found(Method::GET, "/v1/models"), Some((0, vec![])));
        assert_eq!(
            found(Method::POST, "/v1/models/a/b%2Fc:d"),
            Some((2, vec!["a/b/c:d".into()]))
        );
        assert_eq!(
            found(Method::GET, "/v0/things/a%20b"),
            Some((3, vec!["a b".into()]))
        );
        assert_eq!(
            found(Method::GET, "/v0/things/x/parts"),
            Some((5, vec!["x".into()]))
        );
        assert_eq!(
            found(Method::POST, "/v0/deep/a/b/check"),
            Some((7, vec!["a/b".into()]))
        );
        assert_eq!(found(Method::HEAD, "/v1/models"), Some((0, vec![])));
    }

    #[test]
    fn what_has_a_literal_s_name_is_found_by_other_methods() {
        let router = Router::new([
            (Method::POST, "/v0/things/fetch"),
            (Method::GET, "/v0/things/{slug..}"),
            (Method::POST, "/v0/things/{slug..}/check"),
        ]);
        let number = |method: Method, path: &str| match router.find(&method, path) {
            Match::Found(number, params) => Ok((number, params.value("slug").to_owned())),
            Match::MethodNotAllowed(allowed) => Err(allowed),
            Match::NotFound => Err(Vec::new()),
        };
        assert_eq!(
            number(Method::POST, "/v0/things/fetch"),
            Ok((0, String::new()))
        );
        assert_eq!(
            number(Method::GET, "/v0/things/fetch"),
            Ok((1, "fetch".into()))
        );
        assert_eq!(
            number(Method::GET, "/v0/things/a/check"),
            Ok((1, "a/check".into()))
        );
        assert_eq!(
            number(Method::POST, "/v0/things/a/check"),
            Ok((2, "a".into()))
        );
        let allowed = vec![Method::POST, Method::GET, Method::HEAD, Method::OPTIONS];
        assert_eq!(number(Method::PUT, "/v0/things/fetch"), Err(allowed));
    }

    #[test]
    fn odd_paths_match_nothing() {
        for path in [
            "",
            "/",
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/v1/./models",
            "/v1/%2e/models",
            "/V1/models",
            "/v0/things",
            "/v0/things/",
            "/v0/things/a/b",
            "/v0/things/%zz",
            "/v0/things/%ff",
        ] {
            assert_eq!(router().find(&Method::GET, path), Match::NotFound, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let allowed = vec![Method::GET, Method::DELETE, Method::HEAD, Method::OPTIONS];
        assert_eq!(
            router().find(&Method::PUT, "/v0/things/x"),
            Match::MethodNotAllowed(allowed)
        );
    }

    #[test]
    fn a_gemini_path_is_cut_at_its_last_colon() {
        assert_eq!(
            gemini_action("acme/m:free:generateContent"),
            Some(("acme/m:free", "generateContent"))
        );
        assert_eq!(
            gemini_action("models/m:countTokens"),
            Some(("m", "countTokens"))
        );
        assert_eq!(gemini_action("m"), None);
        assert_eq!(gemini_action(":x"), None);
    }
}
