#![no_main]

use strata_fuzz::retrieval::tests::properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    properties::template(bytes);
});
