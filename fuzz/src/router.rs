//! `router`, with the gateway's own table: any path.
//!
//! - Nothing panics; what is found is of the method that was asked for, and a
//!   method that is refused is not among those offered.
//! - A name comes back as it was, whatever it is, once it is percent-encoded.
//! - Model and action put together are the path they were taken from.

use http::Method;
use plexus::router::{Match, Router, gemini_action, percent_decode};
use plexus::routes::ROUTES;

const METHODS: [Method; 6] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let routes = ROUTES.iter();
    let router = Router::new(routes.map(|route| (route.method.clone(), route.pattern)));
    for method in METHODS {
        match router.find(&method, text) {
            Match::Found(number, _) => {
                let found = &ROUTES[number].method;
                let by_get = method == Method::HEAD && found == Method::GET;
                assert!(*found == method || by_get);
            }
            Match::MethodNotAllowed(offered) => assert!(!offered.contains(&method)),
            Match::NotFound => {}
        }
    }
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(percent_decode(&encoded).as_deref(), Some(text));
    if !text.is_empty() {
        let path = format!("/v0/management/keys/{encoded}");
        let Match::Found(number, params) = router.find(&Method::PUT, &path) else {
            panic!("a key's name is a path");
        };
        assert_eq!(ROUTES[number].pattern, "/v0/management/keys/{slug..}");
        assert_eq!(params.value("slug"), text);
    }
    if let Some((model, action)) = gemini_action(text) {
        let together = format!("{model}:{action}");
        assert!(text == together || text == format!("models/{together}"));
    }
}
