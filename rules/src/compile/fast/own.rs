//! What an address is told by elements of its own: only that in which its row differs from that of its surroundings.
//!
//! So a rule for any address, which is in every row, is in the elements of none, and changes none of them.

use std::collections::BTreeSet;

use super::row::Row;
use crate::ruleset::Verdict;

/// Elements of one address, none of which leads to a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Protocol, port, what they are told.
    pub(super) cells: Vec<(u8, u16, Verdict)>,
    /// What all other packets are told; what the surroundings are told, if absent.
    pub(super) otherwise: Option<Verdict>,
}

/// What is told to an address that has a `row` among others that have another; nothing if that takes more elements than
/// `few`, or leads to a chain.
pub(super) fn own(row: &Row<Verdict>, surroundings: &Row<Verdict>, few: usize) -> Option<Own> {
    if let Some(cells) = differing(row, surroundings, few) {
        return Some(Own { cells, otherwise: None });
    }
    if !is_plain(&row.others) {
        return None;
    }
    let constant = Row { protocols: Vec::new(), others: row.others.clone() };
    Some(Own { cells: differing(row, &constant, few)?, otherwise: Some(row.others.clone()) })
}

/// Whether elements with this verdict go into plain sets.
const fn is_plain(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Return | Verdict::Drop)
}

/// The cells in which a row differs from another, if these are few and nothing else differs.
fn differing(row: &Row<Verdict>, other: &Row<Verdict>, few: usize) -> Option<Vec<(u8, u16, Verdict)>> {
    if row.others != other.others {
        return None;
    }
    let protocols: BTreeSet<u8> =
        row.protocols.iter().chain(&other.protocols).map(|(number, _)| *number).collect();
    let mut all = Vec::new();
    for protocol in protocols {
        let [cells, others] = [row, other].map(|row| row.line(protocol));
        if cells.default != others.default {
            return None;
        }
        for (first, last) in cells.differing(&others) {
            if all.len() + usize::from(last - first) >= few {
                return None;
            }
            for port in first..=last {
                let verdict = cells.at(port);
                if !is_plain(verdict) {
                    return None;
                }
                all.push((protocol, port, verdict.clone()));
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::row::Cells;
    use super::*;

    const TCP: u8 = 6;

    const FEW: usize = 8;

    fn own(row: &Row<Verdict>, surroundings: &Row<Verdict>) -> Option<Own> {
        super::own(row, surroundings, FEW)
    }

    fn row(ports: &[(u16, u16, Verdict)], others: Verdict) -> Row<Verdict> {
        let cells = Cells { ports: ports.to_vec(), default: others.clone() };
        Row { protocols: vec![(TCP, cells)], others }
    }

    fn one(port: u16) -> (u16, u16, Verdict) {
        (port, port, Verdict::Return)
    }

    #[test]
    fn what_everybody_is_told_is_in_no_element() {
        let all = row(&[one(9000)], Verdict::Drop);
        let cells = vec![(TCP, 80, Verdict::Return)];
        let expected = Some(Own { cells, otherwise: None });
        assert_eq!(own(&row(&[one(80), one(9000)], Verdict::Drop), &all), expected);
        let other = row(&[(9000, 9100, Verdict::Return)], Verdict::Drop);
        assert_eq!(own(&row(&[one(80), (9000, 9100, Verdict::Return)], Verdict::Drop), &other), expected);
    }

    #[test]
    fn what_others_are_told_and_this_one_is_not_is_an_element_too() {
        let expected = Some(Own { cells: vec![(TCP, 9000, Verdict::Drop)], otherwise: None });
        let nothing = Row { protocols: Vec::new(), others: Verdict::Drop };
        assert_eq!(own(&nothing, &row(&[one(9000)], Verdict::Drop)), expected);
    }

    #[test]
    fn who_is_told_something_else_of_all_ports_says_all_of_it() {
        let all = row(&[one(9000)], Verdict::Drop);
        let allowed = Row { protocols: Vec::new(), others: Verdict::Return };
        assert_eq!(own(&allowed, &all), Some(Own { cells: Vec::new(), otherwise: Some(Verdict::Return) }));
        let but_one = row(&[(22, 22, Verdict::Drop)], Verdict::Return);
        let cells = vec![(TCP, 22, Verdict::Drop)];
        assert_eq!(own(&but_one, &all), Some(Own { cells, otherwise: Some(Verdict::Return) }));
    }

    #[test]
    fn many_cells_and_chains_are_left_to_the_row() {
        let nothing = Row { protocols: Vec::new(), others: Verdict::Drop };
        assert_eq!(own(&row(&[(1, 9, Verdict::Return)], Verdict::Drop), &nothing), None);
        assert!(own(&row(&[(1, 8, Verdict::Return)], Verdict::Drop), &nothing).is_some());
        assert_eq!(own(&row(&[(1, 1, Verdict::Goto("c".into()))], Verdict::Drop), &nothing), None);
        assert_eq!(own(&row(&[one(1)], Verdict::Goto("c".into())), &nothing), None);
    }

    #[test]
    fn lines_differ_where_their_ports_do() {
        let (a, b) = (
            row(&[(5, 9, Verdict::Return), one(65_535)], Verdict::Drop),
            row(&[(7, 8, Verdict::Return)], Verdict::Drop),
        );
        assert_eq!(a.line(TCP).differing(&b.line(TCP)), [(5, 6), (9, 9), (65_535, 65_535)]);
        assert_eq!(a.line(17).differing(&b.line(17)), []);
    }
}
