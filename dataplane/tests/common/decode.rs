//! Reading any bytes as messages of nf_tables: no bytes may make the reader fail but by saying so, and what it makes of
//! them it must write so that it reads the same again.
//!
//! Shared with the fuzz target `nft_messages`.

use tortie_dataplane::nft::{
    ElementReader, Transaction, read_chain, read_flowtable, read_rule, read_set, read_table,
};
use tortie_rules::ruleset::nft::{Chain, Expression, Family, FieldType, Rule, Set, TableId};

/// A netlink message's own header.
pub(crate) const NETLINK_HEADER: usize = 16;

/// Reads a payload as a message of this type (`NFT_MSG_*`), and checks what came of it. True if it could be read.
///
/// # Panics
/// When what was read is written so that it reads as something else.
pub(crate) fn check(kind: u8, payload: &[u8]) -> bool {
    let table = TableId::new(Family::Ipv4, "calico");
    match kind {
        0 => read_table(payload).is_ok(),
        3 => read_chain(payload).is_ok_and(|entry| {
            if let Ok(chain) = entry.chain {
                check_chain(&table, payload, &chain);
            }
            true
        }),
        6 => read_rule(payload).is_ok_and(|entry| {
            if let Ok(rule) = entry.rule {
                check_rule(&table, &rule);
            }
            true
        }),
        9 => read_set(payload).is_ok_and(|entry| {
            if let Ok(set) = entry.set {
                check_set(&table, &set);
            }
            true
        }),
        12 => check_elements(&table, payload),
        _ => read_flowtable(payload).is_ok(),
    }
}

/// The payload of the last message.
fn last(transaction: &Transaction) -> &[u8] {
    let message = transaction.message(transaction.len() - 1).expect("something was written");
    &message[NETLINK_HEADER..]
}

fn is_short(comment: Option<&String>) -> bool {
    comment.is_none_or(|comment| comment.len() <= 127)
}

fn check_chain(table: &TableId, payload: &[u8], chain: &Chain) {
    // Hooks are numbered by family; those of another family are no longer the same.
    if payload.first() != Some(&2) || !is_short(chain.comment.as_ref()) {
        return;
    }
    let mut transaction = Transaction::new();
    transaction.add_chain(table, chain);
    let again = read_chain(last(&transaction)).expect("what was written can be read");
    assert_eq!(again.chain.as_ref(), Ok(chain));
}

fn check_rule(table: &TableId, rule: &Rule) {
    // Expressions within expressions may be longer when they are written, and then too long to be read.
    let is_nested = |expression: &Expression| matches!(expression, Expression::DynamicSet(_));
    if !is_short(rule.comment.as_ref()) || rule.expressions.iter().any(is_nested) {
        return;
    }
    let mut transaction = Transaction::new();
    transaction.replace_rule(table, "cali-a", 1, rule);
    let again = read_rule(last(&transaction)).expect("what was written can be read");
    assert_eq!(again.rule.as_ref(), Ok(rule));
}

fn check_set(table: &TableId, set: &Set) {
    let is_nested = |expression: &Expression| matches!(expression, Expression::DynamicSet(_));
    if !is_short(set.comment.as_ref()) || set.expressions.iter().any(is_nested) {
        return;
    }
    let mut transaction = Transaction::new();
    transaction.add_set(table, set);
    let again = read_set(last(&transaction)).expect("what was written can be read");
    assert_eq!(again.set.as_ref(), Ok(set));
}

/// Elements of four kinds of sets.
fn check_elements(table: &TableId, payload: &[u8]) -> bool {
    let plain = Set::new("cali-s", [FieldType::Ipv4]);
    let concatenation = Set::new("cali-s", [FieldType::Ipv4, FieldType::Port]);
    let sets = [plain.clone().of_intervals(), concatenation.clone().of_intervals(), plain, concatenation];
    let mut is_read = true;
    for set in sets {
        let mut reader = ElementReader::new(&set);
        is_read &= reader.read(payload).is_ok();
        let elements = reader.finish();
        let is_usual = elements.iter().all(|element| {
            let comment = element.extras.as_ref().and_then(|extras| extras.comment.as_ref());
            is_short(comment)
        });
        // In a set of intervals, ends of other lengths than that of the key mean nothing.
        if set.interval || !is_usual || elements.is_empty() {
            continue;
        }
        let mut transaction = Transaction::new();
        transaction.add_elements(table, &set, &elements);
        let mut reader = ElementReader::new(&set);
        for message in 0..transaction.len() {
            let message = transaction.message(message).expect("a message");
            reader.read(&message[NETLINK_HEADER..]).expect("what was written can be read");
        }
        assert_eq!(reader.finish(), elements);
    }
    is_read
}
