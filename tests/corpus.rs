//! What fuzzing looks for, looked for in its seeds: everything that was ever
//! found stays found, without the toolchain that fuzzing needs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a property that doesn't hold is the test's failure"
)]
#![expect(unreachable_pub, reason = "what is checked is a library to the fuzzer")]

use std::path::PathBuf;

#[path = "../fuzz/src/lib.rs"]
mod properties;

fn hold(name: &str, check: fn(&[u8])) {
    let seeds = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut failed = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(seeds.join(name)).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        seen += 1;
        if std::panic::catch_unwind(|| check(&input)).is_err() {
            failed.push(path);
        }
    }
    assert!(seen > 0, "no seeds for {name}");
    assert!(failed.is_empty(), "{failed:#?}");
}

macro_rules! each {
    ($($target:ident),* $(,)?) => {
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                hold(stringify!($target), properties::$target::check);
            }
        )*
    };
}

each![
    config,
    document_pairs,
    error,
    meter,
    opening,
    peek,
    request_pairs,
    router,
    splice,
    sse,
    stream_pairs,
    tape,
];

#[test]
fn every_target_is_looked_at_here() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(fuzz.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        let mut names: Vec<String> = names
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("fuzz_targets"), TARGETS);
    assert_eq!(names("seeds"), TARGETS);
}
