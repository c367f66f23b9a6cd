//! What is compiled change by change, against what is compiled from scratch.

use tortie_api::net::IpVersion;

use super::*;
use crate::compile::Config;
use crate::compile::classic::Classic;
use crate::compile::config::DenyAction;
use crate::render::iptables::Features;
use crate::render::{Table, TableChange};

/// Rules by IP version, table and chain.
#[derive(Debug, Default, PartialEq)]
struct Tables(BTreeMap<(IpVersion, Table, String), Vec<String>>);

impl Tables {
    fn take(&mut self, classic: &mut Classic) {
        for update in classic.poll_tables() {
            let key = |name: &str| (update.version, update.table, name.to_owned());
            match &update.change {
                TableChange::Chain(chain) => {
                    let rules = chain.rules.iter().map(|r| r.text.clone()).collect();
                    self.0.insert(key(&chain.name), rules);
                }
                TableChange::NoChain(name) => {
                    assert!(self.0.remove(&key(name)).is_some(), "{name} goes but was not there");
                }
                TableChange::Hooks(..) => {}
            }
        }
    }

    /// Chains that something leads to but that are not there.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for ((version, table, _), rules) in &self.0 {
            for words in rules.iter().map(|r| r.split(' ').collect::<Vec<_>>()) {
                let at = words.iter().position(|w| ["--jump", "--goto"].contains(w));
                let target = at.map_or("", |at| words[at + 1]);
                if target.starts_with("cali-") && !self.0.contains_key(&(*version, *table, target.to_owned()))
                {
                    missing.push(target.to_owned());
                }
            }
        }
        missing
    }
}

fn from_scratch_compiled<'a>(resources: impl IntoIterator<Item = &'a Resource>, config: &Config) -> Tables {
    let (mut graph, mut classic) = (graph(), Classic::new(config.clone(), Features::default()));
    resources.into_iter().for_each(|r| graph.set(r));
    graph.flush().iter().for_each(|event| classic.handle(event));
    let mut tables = Tables::default();
    tables.take(&mut classic);
    tables
}

#[test]
fn any_series_of_changes_compiles_to_what_a_start_from_scratch_does() {
    let all = resources(CLUSTER);
    let config = Config::default();
    let mut random = Random(3);
    let (mut graph, mut classic) = (graph(), Classic::new(config.clone(), Features::default()));
    let mut tables = Tables::default();
    let mut present: BTreeMap<Key, Resource> = BTreeMap::new();
    for _ in 0..1500 {
        let resource = &all[random.below(all.len())];
        if random.below(3) == 0 {
            graph.remove(&resource.key());
            present.remove(&resource.key());
        } else {
            graph.set(resource);
            present.insert(resource.key(), resource.clone());
        }
        if random.below(4) == 0 {
            graph.flush().iter().for_each(|event| classic.handle(event));
            tables.take(&mut classic);
            assert_eq!(tables, from_scratch_compiled(present.values(), &config));
            assert_eq!(tables.missing(), Vec::<String>::new());
        }
    }
}

#[test]
fn every_table_has_chains_of_host_endpoints() {
    let tables = from_scratch_compiled(&resources(CLUSTER), &Config::default());
    let holds = |table, name: &str| tables.0.contains_key(&(IpVersion::V4, table, name.to_owned()));
    assert!(holds(Table::Raw, "cali-pi-gnp/raw") && holds(Table::Raw, "cali-th-eth0"));
    assert!(!holds(Table::Filter, "cali-pi-gnp/raw"));
    assert!(holds(Table::Mangle, "cali-pi-gnp/early") && holds(Table::Mangle, "cali-po-gnp/through"));
    assert!(holds(Table::Filter, "cali-po-gnp/through") && holds(Table::Filter, "cali-fhfw-eth0"));
}

#[test]
fn refusal_with_an_answer_stays_in_the_filter_table() {
    let config = Config { filter_deny: DenyAction::Reject, ..Config::default() };
    let tables = from_scratch_compiled(&resources(CLUSTER), &config);
    let rejects = |table: Table| {
        let chains = tables.0.iter().filter(move |((_, t, _), _)| *t == table);
        chains.flat_map(|(_, rules)| rules).filter(|rule| rule.contains("REJECT")).count()
    };
    assert!(rejects(Table::Filter) > 0);
    assert_eq!((rejects(Table::Raw), rejects(Table::Mangle)), (0, 0));
}

#[test]
fn failsafe_ports_come_before_all_policy_of_the_host() {
    let tables = from_scratch_compiled(&resources(CLUSTER), &Config::default());
    let is_host = |name: &str| name.starts_with("cali-fh-") || name.starts_with("cali-th-");
    let chains: Vec<_> = tables.0.iter().filter(|((.., name), _)| is_host(name)).collect();
    assert!(chains.len() >= 8, "{}", chains.len());
    for ((_, table, name), rules) in chains {
        let failsafe = rules.iter().position(|r| r.contains("--jump cali-failsafe-"));
        let policy = rules.iter().position(|r| r.contains("tier") || r.contains("profile"));
        let (failsafe, policy) = (failsafe.expect("failsafe ports"), policy.unwrap_or(rules.len()));
        assert!(failsafe < policy, "{table} {name}: {rules:?}");
    }
}
