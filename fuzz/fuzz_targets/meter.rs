//! Any bytes for [`plexus_fuzz::meter`], where it says what must hold.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| plexus_fuzz::meter::check(input));
