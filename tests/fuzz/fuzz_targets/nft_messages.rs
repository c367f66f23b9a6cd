//! Any bytes as a message of nf_tables: refused, or what was read of them is written so that it reads the same again.
//! The first byte is the message's type.

#![no_main]

#[path = "../../../dataplane/tests/common/decode.rs"]
mod decode;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if let Some((kind, payload)) = input.split_first() {
        decode::check(*kind, payload);
    }
});
