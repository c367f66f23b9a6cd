#![allow(clippy::unwrap_used, reason = "a test may panic")]

use tortie_rules::ruleset::nft::{Chain, Table};

use super::*;

/// A transaction of messages of many lengths, of which `ahead` may go ahead.
fn transaction(lengths: &[usize], ahead: usize) -> Transaction {
    let mut transaction = Transaction::new();
    let id = TableId::new(Family::Ipv4, "calico");
    for (number, len) in lengths.iter().enumerate() {
        if number == ahead {
            transaction.split_here();
        }
        let comment = Some("x".repeat(*len));
        transaction.add_table(&Table { id: id.clone(), comment });
    }
    if ahead == lengths.len() {
        transaction.split_here();
    }
    transaction
}

#[test]
fn every_datagram_fits_and_none_ends_within_what_goes_together() {
    let mut is_split = 0;
    for seed in 0..2_000u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 40).unwrap() % limit
        };
        let lengths: Vec<usize> = (0..=below(30)).map(|_| below(120)).collect();
        let ahead = below(lengths.len() + 1);
        let transaction = transaction(&lengths, ahead);
        let limit = 100 + below(2_000);
        let bytes =
            |start: usize, end: usize| transaction.batch.offset(end) - transaction.batch.offset(start);
        match chunks(&transaction, limit) {
            Ok(ends) => {
                assert!(ends.is_sorted() && ends.last() == Some(&lengths.len()), "{ends:?}");
                assert!(
                    ends[..ends.len() - 1].iter().all(|end| (1..=ahead).contains(end)),
                    "{ends:?} {ahead}"
                );
                let starts = std::iter::once(0).chain(ends.iter().copied());
                assert!(
                    starts
                        .zip(&ends)
                        .all(|(start, end)| start < *end && bytes(start, *end) + ENVELOPE <= limit)
                );
                is_split += usize::from(ends.len() > 1);
            }
            Err(CommitError::TooLarge { bytes: too_large, .. }) => {
                let whole = bytes(ahead, lengths.len());
                let largest = (0..ahead).map(|number| bytes(number, number + 1)).max().unwrap_or(0);
                assert!(whole.max(largest) + ENVELOPE > limit && too_large + ENVELOPE > limit);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(is_split > 200, "{is_split}");
}

#[test]
fn rules_are_numbered_within_what_is_written_to_their_chain() {
    let id = TableId::new(Family::Ipv4, "calico");
    let mut transaction = Transaction::new();
    for chain in ["cali-a", "cali-a", "cali-b"] {
        transaction.add_rule(&id, chain, &tortie_rules::ruleset::nft::Rule::default());
    }
    transaction.add_chain(&id, &Chain::plain("cali-c"));
    let texts: Vec<String> = (0..4).map(|message| transaction.object(message).unwrap().to_string()).collect();
    assert_eq!(
        texts,
        [
            "rule 0 of chain ip calico cali-a",
            "rule 1 of chain ip calico cali-a",
            "rule 0 of chain ip calico cali-b",
            "chain ip calico cali-c",
        ]
    );
    assert_eq!(transaction.object(4), None);
}
