//! The codec of nf_tables beside `nft -f` doing the same, on one table.
//!
//! `nft` 1.0.6 asks for a send buffer that an ordinary user does not get, and fails with large files: there it has no
//! number.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::ensure;
use tortie_dataplane::nft::{Removal, Socket, Transaction, Watch};
use tortie_rules::ruleset::nft::{
    Chain, Comparison, Data, Element, Expression, Family, FieldType, MetaKey, Payload, Register, Rule, Set,
    Table, TableId,
};

use super::latency::millis;
use super::stats::Samples;
use super::{Part, Row, Unit, by_hand};
use crate::lab::Netns;

const CHAINS: u32 = 100;
const RULES_OF_CHAIN: u32 = 100;
const REWRITTEN: u32 = 20;
const ELEMENTS: u32 = 100_000;
/// Elements of one update.
const UPDATE: u32 = 10;
const LOADS: usize = 7;
const UPDATES: usize = 100;

/// Measures whole loads, small changes of what is large, and reading.
pub(super) fn measure() -> anyhow::Result<Vec<Row>> {
    Netns::new("nf_tables", &[])?.enter(|| {
        let mut bench = Bench::new();
        let mut rows = bench.loads()?;
        rows.extend(bench.changes()?);
        rows.extend(bench.watched()?);
        Ok(rows)
    })?
}

struct Bench {
    socket: Socket,
    table: Table,
    /// What `nft` writes to.
    other: TableId,
    set: Set,
}

fn row(what: impl Into<String>, ours: &Samples) -> Row {
    Row::new(Part::NftCodec, what, Unit::Millis, ours)
}

/// The time that something takes.
fn timed<T>(action: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let started = Instant::now();
    action()?;
    Ok(millis(started.elapsed()))
}

impl Bench {
    fn new() -> Self {
        let table = Table { id: TableId::new(Family::Ipv4, "calico"), comment: None };
        let set = Set::new("cali-s", [FieldType::Ipv4]);
        Self { socket: Socket::new(), table, other: TableId::new(Family::Ipv4, "other"), set }
    }

    fn commit(&mut self, transaction: &mut Transaction) -> anyhow::Result<()> {
        Ok(self.socket.commit(transaction, None)?)
    }

    /// Deletes a table, if it is there.
    fn delete(&mut self, table: &TableId) -> anyhow::Result<()> {
        let mut transaction = Transaction::new();
        transaction.remove_table(table, Removal::IfPresent);
        self.commit(&mut transaction)
    }

    fn loads(&mut self) -> anyhow::Result<Vec<Row>> {
        let (rules, elements) = (rules(), elements(0..ELEMENTS));
        let (rule_text, element_text) = (rule_text(&self.other), element_text(&self.other));
        let (mut ours, mut theirs) =
            ([Samples::default(), Samples::default()], [Samples::default(), Samples::default()]);
        let (id, other) = (self.table.id.clone(), self.other.clone());
        for _ in 0..LOADS {
            ours[0].push(timed(|| self.load_rules(&rules))?);
            self.delete(&id)?;
            theirs[0].extend(timed(|| by_hand::run("nft", &["-f", "-"], &rule_text)).ok());
            self.delete(&other)?;
            ours[1].push(timed(|| self.load_elements(&elements))?);
            self.delete(&id)?;
            theirs[1].extend(timed(|| by_hand::run("nft", &["-f", "-"], &element_text)).ok());
            self.delete(&other)?;
        }
        let [rules, elements] = ours;
        let count = CHAINS * RULES_OF_CHAIN;
        Ok(vec![
            row(format!("{count} nft rules into a new table"), &rules).beside("nft -f", &theirs[0]),
            row(format!("{ELEMENTS} elements into a new set"), &elements).beside("nft -f", &theirs[1]),
        ])
    }

    fn load_rules(&mut self, rules: &[Rule]) -> anyhow::Result<()> {
        let mut transaction = Transaction::new();
        transaction.add_table(&self.table);
        for (number, chain) in rules.chunks(RULES_OF_CHAIN as usize).enumerate() {
            let name = format!("cali-{number}");
            transaction.add_chain(&self.table.id, &Chain::plain(&name));
            for rule in chain {
                transaction.add_rule(&self.table.id, &name, rule);
            }
        }
        // Nothing leads to the new chains: an ordinary user's socket takes them in parts.
        transaction.split_here();
        self.commit(&mut transaction)
    }

    fn load_elements(&mut self, elements: &[Element]) -> anyhow::Result<()> {
        let mut transaction = Transaction::new();
        transaction.add_table(&self.table);
        transaction.add_set(&self.table.id, &self.set);
        transaction.add_elements(&self.table.id, &self.set, elements);
        transaction.split_here();
        self.commit(&mut transaction)
    }

    /// Small changes where there is much.
    fn changes(&mut self) -> anyhow::Result<Vec<Row>> {
        let rules = rules();
        self.load_rules(&rules)?;
        self.load_elements(&elements(0..ELEMENTS))?;
        let id = self.table.id.clone();
        let mut chain = [Samples::default(), Samples::default()];
        let mut update = [Samples::default(), Samples::default()];
        for round in 0..UPDATES {
            let name = format!("cali-{}", round % CHAINS as usize);
            chain[0].push(timed(|| self.rewrite(&name, &rules[..REWRITTEN as usize]))?);
            let text = rewrite_text(&id, &name);
            chain[1].extend(timed(|| by_hand::run("nft", &["-f", "-"], &text)).ok());
            // Elements come in one round and go in the next.
            let (is_added, first) = (round.is_multiple_of(2), ELEMENTS);
            let members = elements(first..first + UPDATE);
            update[0].push(timed(|| self.update(&members, is_added))?);
            let verb = if is_added { "add" } else { "delete" };
            let names = addresses(first + UPDATE..first + 2 * UPDATE).map(|address| address.to_string());
            let names = names.collect::<Vec<_>>().join(", ");
            let text = format!("{verb} element {id} {} {{ {names} }}\n", self.set.name);
            update[1].extend(timed(|| by_hand::run("nft", &["-f", "-"], &text)).ok());
        }
        let mut read = [Samples::default(), Samples::default(), Samples::default(), Samples::default()];
        for _ in 0..LOADS {
            read[0].push(timed(|| self.read_rules())?);
            read[1].extend(timed(|| by_hand::run("nft", &["-f", "-"], "list table ip calico\n")).ok());
            read[2].push(timed(|| self.read_elements())?);
            read[3].extend(timed(|| by_hand::run("nft", &["-f", "-"], "list set ip calico cali-s\n")).ok());
        }
        self.delete(&id)?;
        let count = CHAINS * RULES_OF_CHAIN;
        Ok(vec![
            row(format!("a chain of {REWRITTEN} nft rules among {count} written again"), &chain[0])
                .beside("nft -f", &chain[1]),
            row(format!("{UPDATE} elements of a set of {ELEMENTS} added or deleted"), &update[0])
                .beside("nft -f", &update[1]),
            row(format!("{count} nft rules read"), &read[0]).beside("nft list table, with the set", &read[1]),
            row(format!("{ELEMENTS} elements read"), &read[2]).beside("nft list set", &read[3]),
        ])
    }

    /// What it costs that somebody listens: the kernel tells of each rule and element.
    fn watched(&mut self) -> anyhow::Result<Vec<Row>> {
        let (rules, elements, id) = (rules(), elements(0..ELEMENTS), self.table.id.clone());
        let mut heard = [Samples::default(), Samples::default()];
        let mut unheard = [Samples::default(), Samples::default()];
        for _ in 0..LOADS {
            unheard[0].push(timed(|| self.load_rules(&rules))?);
            self.delete(&id)?;
            unheard[1].push(timed(|| self.load_elements(&elements))?);
            self.delete(&id)?;
            let mut watch = Watch::open()?;
            heard[0].push(timed(|| self.load_rules(&rules))?);
            watch.poll();
            self.delete(&id)?;
            watch.poll();
            heard[1].push(timed(|| self.load_elements(&elements))?);
            watch.poll();
            self.delete(&id)?;
        }
        let count = CHAINS * RULES_OF_CHAIN;
        Ok(vec![
            row(format!("{count} nft rules while somebody listens"), &heard[0])
                .beside("nobody does", &unheard[0]),
            row(format!("{ELEMENTS} elements while somebody listens"), &heard[1])
                .beside("nobody does", &unheard[1]),
        ])
    }

    fn rewrite(&mut self, chain: &str, rules: &[Rule]) -> anyhow::Result<()> {
        let mut transaction = Transaction::new();
        transaction.flush_chain(&self.table.id, chain);
        for rule in rules {
            transaction.add_rule(&self.table.id, chain, rule);
        }
        self.commit(&mut transaction)
    }

    fn update(&mut self, elements: &[Element], is_added: bool) -> anyhow::Result<()> {
        let mut transaction = Transaction::new();
        if is_added {
            transaction.add_elements(&self.table.id, &self.set, elements);
        } else {
            transaction.remove_elements(&self.table.id, &self.set, elements, Removal::MustExist);
        }
        self.commit(&mut transaction)
    }

    fn read_rules(&mut self) -> anyhow::Result<()> {
        let rules = self.socket.rules(&self.table.id, None)?;
        ensure!(rules.iter().all(|entry| entry.rule.is_ok()), "a rule was not understood");
        ensure!(rules.len() > REWRITTEN as usize * CHAINS as usize - 1, "only {} rules", rules.len());
        Ok(())
    }

    fn read_elements(&mut self) -> anyhow::Result<()> {
        let elements = self.socket.elements(&self.table.id, &self.set)?;
        ensure!(elements.len() >= ELEMENTS as usize, "only {} elements", elements.len());
        Ok(())
    }
}

/// Addresses of 10.0.0.0/8 by number.
fn addresses(numbers: std::ops::Range<u32>) -> impl Iterator<Item = Ipv4Addr> {
    numbers.map(|number| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number))
}

fn elements(numbers: std::ops::Range<u32>) -> Vec<Element> {
    addresses(numbers).map(|address| Element::new(address.into())).collect()
}

/// A port for a rule.
fn port(number: u32) -> u16 {
    u16::try_from(1 + number % 60_000).unwrap_or(1)
}

/// Rules that look at protocol, source and port, count, and mark.
fn rules() -> Vec<Rule> {
    addresses(0..CHAINS * RULES_OF_CHAIN).zip(0..).map(|(address, number)| rule(address, number)).collect()
}

fn rule(address: Ipv4Addr, number: u32) -> Rule {
    let to = Register::FIRST;
    let equal = |value| Expression::Compare { comparison: Comparison::Equal, from: to, value };
    let mark = 0x10000;
    Rule {
        expressions: vec![
            Expression::Meta { key: MetaKey::Protocol, to },
            equal(Data::u8(6)),
            Expression::Payload { payload: Payload::IPV4_SOURCE, to },
            equal(address.into()),
            Expression::Payload { payload: Payload::DESTINATION_PORT, to },
            equal(Data::be16(port(number))),
            Expression::Counter,
            Expression::Meta { key: MetaKey::Mark, to },
            Expression::Bitwise { from: to, to, mask: Data::host32(!mark), xor: Data::host32(mark) },
            Expression::SetMeta { key: MetaKey::Mark, from: to },
        ],
        comment: Some(comment(number)),
    }
}

fn comment(number: u32) -> String {
    format!("cali:{number:016x}")
}

/// The same rules in nft's words.
fn rule_line(address: Ipv4Addr, number: u32) -> String {
    format!(
        "meta l4proto tcp ip saddr {address} tcp dport {} counter meta mark set meta mark | 0x10000 comment \"{}\"",
        port(number),
        comment(number)
    )
}

fn rule_text(table: &TableId) -> String {
    let mut text = format!("table {table} {{\n");
    let mut lines =
        addresses(0..CHAINS * RULES_OF_CHAIN).zip(0..).map(|(address, number)| rule_line(address, number));
    for chain in 0..CHAINS {
        let _ = writeln!(text, "chain cali-{chain} {{");
        for line in lines.by_ref().take(RULES_OF_CHAIN as usize) {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

fn rewrite_text(table: &TableId, chain: &str) -> String {
    let mut text = format!("flush chain {table} {chain}\n");
    for (address, number) in addresses(0..REWRITTEN).zip(0..) {
        let _ = writeln!(text, "add rule {table} {chain} {}", rule_line(address, number));
    }
    text
}

fn element_text(table: &TableId) -> String {
    let names: Vec<String> = addresses(0..ELEMENTS).map(|address| address.to_string()).collect();
    format!(
        "table {table} {{\nset cali-s {{\ntype ipv4_addr\nelements = {{ {} }}\n}}\n}}\n",
        names.join(", ")
    )
}
