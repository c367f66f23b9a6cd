//! Any bytes as the output of `iptables-save`: read whole or in pieces, they say the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tortie_dataplane::iptables::save::{SaveParser, is_ours};
use tortie_rules::render::Table;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (table, size, text) = input;
    let table = Table::ALL[usize::from(table) % Table::ALL.len()];
    let mut whole = SaveParser::new(table);
    whole.feed(text);
    let whole = whole.finish();
    let mut pieces = SaveParser::new(table);
    text.chunks(usize::from(size).max(1)).for_each(|piece| pieces.feed(piece));
    assert_eq!(pieces.finish(), whole);
    assert!(whole.chains.keys().chain(whole.pinned.keys()).all(|chain| is_ours(chain)));
    assert!(whole.kernel.keys().all(|chain| table.kernel_chains().contains(chain)));
});
