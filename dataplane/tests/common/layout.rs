//! A whole table of all shapes, for the codec and in nft's words.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fmt::Write as _;

use tortie_dataplane::nft::Transaction;
use tortie_rules::ruleset::nft::{Chain, ChainKind, Family, Flowtable, Hook, Policy, Table, TableId};

use crate::common::sh;
use crate::shapes::{
    SetShape, Shape, arp_shapes, filter_shapes, nat_shapes, netdev_shapes, rare_shapes, raw_shapes,
    set_shapes,
};

/// A table and all that is in it.
pub(crate) struct Layout {
    pub(crate) table: Table,
    pub(crate) chains: Vec<(Chain, Vec<Shape>)>,
    pub(crate) sets: Vec<SetShape>,
    pub(crate) flowtables: Vec<Flowtable>,
}

impl Layout {
    /// All shapes of a family.
    pub(crate) fn new(family: Family) -> Self {
        match family {
            Family::Netdev => netdev_layout(),
            Family::Arp => arp_layout(),
            _ => Self::of_ip(family),
        }
    }

    fn of_ip(family: Family) -> Self {
        let base = |name: &str, kind, hook, priority| Chain::at_hook(name, kind, hook, priority);
        let mut filter = base("filter", ChainKind::Filter, Hook::Forward, -10);
        filter.comment = Some("what goes through".to_owned());
        if let Some(base) = &mut filter.base {
            base.policy = Policy::Drop;
        }
        let chains = vec![
            (Chain::plain("cali-target"), vec![]),
            (
                Chain { comment: Some("others lead here".to_owned()), ..Chain::plain("cali-shapes") },
                filter_shapes(family),
            ),
            (filter, vec![]),
            (base("mangle", ChainKind::Route, Hook::Output, -150), vec![]),
            (base("raw", ChainKind::Filter, Hook::Prerouting, -300), raw_shapes()),
            (base("nat-before", ChainKind::Nat, Hook::Prerouting, -100), nat_shapes(family, true)),
            (base("nat-behind", ChainKind::Nat, Hook::Postrouting, 100), nat_shapes(family, false)),
            (base("input", ChainKind::Filter, Hook::Input, 0), vec![]),
        ];
        let table = Table { id: TableId::new(family, "calico"), comment: Some("made by Tortie".to_owned()) };
        Self { table, chains, sets: set_shapes(family), flowtables: vec![] }
    }

    /// The same with what the newer nft makes of its words.
    pub(crate) fn in_newer_words(mut self) -> Self {
        for shape in self.chains.iter_mut().flat_map(|(_, shapes)| shapes) {
            if let Some(newer) = shape.newer.take() {
                shape.rule = newer;
            }
        }
        self
    }

    /// It as one transaction.
    pub(crate) fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::new();
        let id = &self.table.id;
        transaction.add_table(&self.table);
        for (chain, _) in &self.chains {
            transaction.add_chain(id, chain);
        }
        for shape in &self.sets {
            transaction.add_set(id, &shape.set);
            transaction.add_elements(id, &shape.set, &shape.elements);
        }
        for flowtable in &self.flowtables {
            transaction.add_flowtable(id, flowtable);
        }
        for (chain, shapes) in &self.chains {
            for shape in shapes {
                transaction.add_rule(id, &chain.name, &shape.rule);
            }
        }
        transaction
    }

    /// It in nft's words.
    pub(crate) fn text(&self) -> String {
        let id = &self.table.id;
        let mut text = format!("table {} {} {{\n", id.family.name(), id.name);
        if let Some(comment) = &self.table.comment {
            writeln!(text, "comment \"{comment}\";").unwrap();
        }
        for SetShape { set, declaration, text: elements, .. } in &self.sets {
            let kind = if set.data.is_some() { "map" } else { "set" };
            let elements =
                if elements.is_empty() { String::new() } else { format!("elements = {{ {elements} }};") };
            writeln!(text, "{kind} {} {{ {declaration}\n{elements} }}", set.name).unwrap();
        }
        for flowtable in &self.flowtables {
            let counter = if flowtable.counter { "counter;" } else { "" };
            let devices = flowtable.devices.join(", ");
            writeln!(
                text,
                "flowtable {} {{ hook ingress priority {}; devices = {{ {devices} }}; {counter} }}",
                flowtable.name, flowtable.priority
            )
            .unwrap();
        }
        for (chain, shapes) in &self.chains {
            writeln!(text, "chain {} {{", chain.name).unwrap();
            if let Some(comment) = &chain.comment {
                writeln!(text, "comment \"{comment}\";").unwrap();
            }
            if let Some(base) = &chain.base {
                let kind = format!("{:?}", base.kind).to_lowercase();
                let hook = format!("{:?}", base.hook).to_lowercase();
                let policy = format!("{:?}", base.policy).to_lowercase();
                let device = match base.devices.as_slice() {
                    [] => String::new(),
                    [device] => format!("device {device}"),
                    devices => format!("devices = {{ {} }}", devices.join(", ")),
                };
                writeln!(
                    text,
                    "type {kind} hook {hook} {device} priority {}; policy {policy};",
                    base.priority
                )
                .unwrap();
            }
            for shape in shapes {
                writeln!(text, "{}", shape.text).unwrap();
            }
            text.push_str("}\n");
        }
        text.push_str("}\n");
        text
    }

    /// A file with its words.
    pub(crate) fn text_file(&self) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), self.text()).unwrap();
        file
    }

    /// Has a program put it into the kernel.
    pub(crate) fn load_by_nft(&self, program: &str) {
        let file = self.text_file();
        sh(&format!("{program} -f {}", file.path().display()));
    }
}

/// What this kernel may lack: only for comparing bytes.
pub(crate) fn rare_layout() -> Layout {
    let table = Table { id: TableId::new(Family::Ipv4, "calico"), comment: None };
    let flowtable = |name: &str, devices: &[&str], counter| {
        let devices = devices.iter().map(|&device| device.to_owned()).collect();
        Flowtable { name: name.to_owned(), priority: 10, devices, counter }
    };
    let flowtables = vec![flowtable("cali-f", &["lo"], false), flowtable("cali-g", &["lo", "some"], true)];
    Layout { table, chains: vec![(Chain::plain("rare"), rare_shapes())], sets: vec![], flowtables }
}

/// Packets of an interface before everything else.
fn netdev_layout() -> Layout {
    let mut chain = Chain::at_hook("cali-in", ChainKind::Filter, Hook::Ingress, -500);
    let mut several = Chain::at_hook("cali-both", ChainKind::Filter, Hook::Ingress, 10);
    for (chain, devices) in [(&mut chain, &["lo"][..]), (&mut several, &["br0", "lo"])] {
        if let Some(base) = &mut chain.base {
            base.devices = devices.iter().map(|&device| device.to_owned()).collect();
        }
    }
    let table = Table { id: TableId::new(Family::Netdev, "calico"), comment: None };
    Layout {
        table,
        chains: vec![(chain, netdev_shapes()), (several, vec![])],
        sets: vec![],
        flowtables: vec![],
    }
}

fn arp_layout() -> Layout {
    let table = Table { id: TableId::new(Family::Arp, "calico-arp"), comment: None };
    let chain = |name: &str, hook| Chain::at_hook(name, ChainKind::Filter, hook, 0);
    Layout {
        table,
        chains: vec![(chain("output", Hook::Output), arp_shapes()), (chain("input", Hook::Input), vec![])],
        sets: vec![],
        flowtables: vec![],
    }
}
