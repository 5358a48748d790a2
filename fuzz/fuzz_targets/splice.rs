//! Any bytes for [`plexus_fuzz::splice`], where it says what must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| plexus_fuzz::splice::check(input));
