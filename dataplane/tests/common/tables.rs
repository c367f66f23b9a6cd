//! What the tests of the iptables driver share: cases of back end and IP version, a little policy, and what the
//! kernel says of it.
#![allow(dead_code, unused_macros, reason = "each test program uses its part")]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tortie_api::net::IpVersion;
use tortie_dataplane::feature::{Backend, detect_features};
use tortie_dataplane::iptables::{IptablesTable, Options, RuleWatch, Tools};
use tortie_dataplane::reconcile::{Driver, Phase, Report};
use tortie_rules::render::{
    InsertMode, RenderedChain, RenderedHook, RenderedRule, RuleId, Table, TableChange,
};

use crate::common::{Outcome, sh, try_sh};

/// A back end and an IP version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) backend: Backend,
    pub(crate) version: IpVersion,
}

pub(crate) const LEGACY_V4: Case = Case { backend: Backend::Legacy, version: IpVersion::V4 };

pub(crate) const LEGACY_V6: Case = Case { backend: Backend::Legacy, version: IpVersion::V6 };

pub(crate) const NFT_V4: Case = Case { backend: Backend::Nft, version: IpVersion::V4 };

pub(crate) const NFT_V6: Case = Case { backend: Backend::Nft, version: IpVersion::V6 };

/// One test for each of the cases.
macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {
        vec![$(
            Test::new(concat!("legacy_v4::", stringify!($name)), &[], || LEGACY_V4.run($name)),
            Test::new(concat!("legacy_v6::", stringify!($name)), &[], || LEGACY_V6.run($name)),
            Test::new(concat!("nft_v4::", stringify!($name)), &[], || NFT_V4.run($name)),
            Test::new(concat!("nft_v6::", stringify!($name)), &[], || NFT_V6.run($name)),
        )+]
    };
}

/// One test for each IP version of the nft back end.
macro_rules! nft {
    ($($name:ident),+ $(,)?) => {
        vec![$(
            Test::new(concat!("nft_v4::", stringify!($name)), &[], || NFT_V4.run($name)),
            Test::new(concat!("nft_v6::", stringify!($name)), &[], || NFT_V6.run($name)),
        )+]
    };
}

impl Case {
    pub(crate) fn run(self, body: fn(Case)) -> Outcome {
        for backend in [self.backend, Backend::Nft, Backend::Legacy] {
            let command = Case { backend, ..self }.program("");
            let (works, text) = try_sh(&format!("{command} -t filter -L -n"));
            if !works {
                return Outcome::Skipped(format!("{command}: {}", text.trim()));
            }
        }
        body(self);
        Outcome::Done
    }

    pub(crate) fn program(self, verb: &str) -> String {
        let stem = if self.version == IpVersion::V4 { "iptables" } else { "ip6tables" };
        format!("{stem}-{}{verb}", self.backend)
    }

    /// Runs `iptables`.
    pub(crate) fn ipt(self, args: &str) {
        sh(&format!("{} {args}", self.program("")));
    }

    /// The table's lines, without comments and header.
    pub(crate) fn save(self, table: Table) -> Vec<String> {
        let text = sh(&format!("{} -t {table}", self.program("-save")));
        text.lines().filter(|line| line.starts_with(['-', ':'])).map(str::to_owned).collect()
    }

    pub(crate) fn foreign(self, table: Table) -> Vec<String> {
        self.save(table).into_iter().filter(|line| !line.contains("cali")).collect()
    }

    /// The rules of a chain as saved.
    pub(crate) fn rules(self, table: Table, chain: &str) -> Vec<String> {
        let start = format!("-A {chain} ");
        self.save(table).iter().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect()
    }

    /// The ids of a chain's rules, `-` for those without.
    pub(crate) fn ids(self, table: Table, chain: &str) -> Vec<String> {
        let id = |rule: &String| {
            rule.split_once("\"cali:").map_or("-".to_owned(), |(_, tail)| tail[..16].to_owned())
        };
        self.rules(table, chain).iter().map(id).collect()
    }

    pub(crate) fn chains(self, table: Table) -> Vec<String> {
        let lines = self.save(table);
        let names = lines.iter().filter_map(|line| line.strip_prefix(":cali"));
        names.map(|rest| format!("cali{}", rest.split(' ').next().unwrap())).collect()
    }

    pub(crate) fn tools(self) -> Tools {
        Tools::find(self.version, self.backend, detect_features(self.backend)).expect("programs")
    }

    pub(crate) fn driver(self, table: Table) -> IptablesTable {
        IptablesTable::new(self.version, table, self.tools(), Options::default())
    }

    /// A filter table with a little policy, programmed.
    pub(crate) fn programmed(self) -> IptablesTable {
        let mut driver = self.driver(Table::Filter);
        want_policy(&mut driver);
        driver.observe().unwrap();
        enforce(&mut driver);
        driver
    }

    pub(crate) fn assert_policy_is_in_force(self) {
        for (name, actions) in POLICY {
            assert_eq!(self.ids(Table::Filter, name), ids_of(name, actions), "{name}");
        }
        let (top, end) = (ids_of("FORWARD", &["-j cali-FORWARD"]), ids_of("FORWARD-end", &[MARK_ACCEPT]));
        let forward = self.ids(Table::Filter, "FORWARD");
        assert_eq!((forward.first(), forward.last()), (top.first(), end.first()), "{forward:?}");
        assert_eq!(forward.iter().filter(|id| *id != "-").count(), 2, "{forward:?}");
        assert_eq!(self.ids(Table::Filter, "INPUT")[0], ids_of("INPUT", &["-j cali-INPUT"])[0]);
    }
}

/// A driver that is told what others do.
pub(crate) struct Watched {
    pub(crate) driver: IptablesTable,
    pub(crate) watch: RuleWatch,
}

impl Watched {
    /// With the policy programmed, and nothing heard since.
    pub(crate) fn programmed(case: Case) -> Self {
        let tools = case.tools();
        let mut watch = RuleWatch::open(tools.writers.clone()).unwrap();
        let mut driver = IptablesTable::new(case.version, Table::Filter, tools, Options::default());
        want_policy(&mut driver);
        driver.observe().unwrap();
        enforce(&mut driver);
        watch.poll();
        Self { driver, watch }
    }

    /// What was heard of the table, and what it took to mend it.
    pub(crate) fn mend(&mut self, case: Case) -> Option<Report> {
        let touch = self.watch.poll().remove(&(case.version, Table::Filter))?;
        self.driver.touch(touch);
        self.driver.observe_touched().unwrap();
        Some(enforce(&mut self.driver))
    }
}

pub(crate) const MARK_ACCEPT: &str = "-m mark --mark 0x10000/0x10000 -j ACCEPT";

pub(crate) const POLICY: [(&str, &[&str]); 4] = [
    ("cali-FORWARD", &["-i cali+ -j cali-from-wl", "-o cali+ -j cali-to-wl"]),
    ("cali-INPUT", &["-i cali+ -g cali-from-wl"]),
    (
        "cali-from-wl",
        &["-p tcp --dport 80 -j RETURN", "-p udp -m multiport --dports 53,123 -j RETURN", "-j DROP"],
    ),
    ("cali-to-wl", &["-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j DROP"]),
];

pub(crate) fn rule(chain: &str, index: usize, action: &str) -> RenderedRule {
    let mut hasher = DefaultHasher::new();
    (chain, index, action).hash(&mut hasher);
    let id = RuleId::parse(&format!("{:016x}", hasher.finish())).unwrap();
    RenderedRule { id, text: format!("-m comment --comment \"cali:{id}\" {action}") }
}

pub(crate) fn rules_of(chain: &str, actions: &[&str]) -> Vec<RenderedRule> {
    actions.iter().enumerate().map(|(index, action)| rule(chain, index, action)).collect()
}

pub(crate) fn ids_of(chain: &str, actions: &[&str]) -> Vec<String> {
    rules_of(chain, actions).iter().map(|rule| rule.id.to_string()).collect()
}

pub(crate) fn chain(name: &str, actions: &[&str]) -> TableChange {
    TableChange::Chain(Arc::new(RenderedChain { name: name.to_owned(), rules: rules_of(name, actions) }))
}

pub(crate) fn hook(chain: &str, inserted: &[&str], appended: &[&str]) -> RenderedHook {
    RenderedHook {
        chain: chain.to_owned(),
        inserted: rules_of(chain, inserted),
        appended: rules_of(&format!("{chain}-end"), appended),
    }
}

pub(crate) fn hooks(mode: InsertMode) -> TableChange {
    let forward = hook("FORWARD", &["-j cali-FORWARD"], &[MARK_ACCEPT]);
    TableChange::Hooks(vec![forward, hook("INPUT", &["-j cali-INPUT"], &[])], mode)
}

pub(crate) fn want_policy(driver: &mut IptablesTable) {
    for (name, actions) in POLICY {
        driver.change(chain(name, actions));
    }
    driver.change(hooks(InsertMode::Insert));
}

pub(crate) fn want_nothing(driver: &mut IptablesTable) {
    driver.change(TableChange::Hooks(Vec::new(), InsertMode::Insert));
    for (name, _) in POLICY {
        driver.change(TableChange::NoChain(name.to_owned()));
    }
}

/// Applies and wants no problem.
pub(crate) fn enforce(driver: &mut IptablesTable) -> Report {
    let report = driver.apply(Phase::Enforce);
    assert_eq!(report.problems, [], "{}", driver.name());
    assert!(driver.plan(Phase::Enforce).is_empty(), "{}", driver.plan(Phase::Enforce));
    report
}

pub(crate) fn problem_of<'a>(report: &'a Report, part: &str) -> &'a str {
    let found = report.problems.iter().find(|problem| problem.object.starts_with(part));
    &found.unwrap_or_else(|| panic!("no problem of {part}: {:?}", report.problems)).error
}

pub(crate) fn add_foreign_rules(case: Case) {
    case.ipt("-P FORWARD DROP");
    case.ipt("-N KUBE-FORWARD");
    case.ipt("-N admin");
    case.ipt("-A admin -m comment --comment 'a \"quoted\" remark, not ours' -j LOG --log-prefix 'x y: '");
    case.ipt("-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT");
    case.ipt("-A FORWARD -j KUBE-FORWARD");
    case.ipt("-A FORWARD -i docker0 -j ACCEPT");
    case.ipt("-A INPUT -p tcp --dport 22 -j ACCEPT");
    case.ipt("-A INPUT -j admin");
}

pub(crate) fn is_closed(case: Case, table: Table, chain: &str) -> bool {
    let rules = case.rules(table, chain);
    rules.len() == 1 && rules[0].contains("closed") && rules[0].ends_with("-j DROP")
}

#[allow(unused_imports, reason = "each test program uses its part")]
pub(crate) use {matrix, nft};
