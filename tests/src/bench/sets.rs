//! The ip set driver beside `ipset restore`, on a large set.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::ensure;
use tortie_api::net::IpVersion;
use tortie_dataplane::ipset::{IpSets, Member, SetSpec, SetType};
use tortie_dataplane::reconcile::{Driver as _, Phase};

use super::latency::millis;
use super::stats::Samples;
use super::{Part, Row, Unit, by_hand};
use crate::lab::Netns;

/// Members of one update.
const UPDATE: u32 = 10;
const UPDATES: u32 = 200;
const FILLS: u32 = 3;

/// Measures filling a set with `size` members, and updates of it.
pub(super) fn measure(size: u32) -> anyhow::Result<Vec<Row>> {
    Netns::new("ip sets", &[])?.enter(|| inside(size))?
}

fn inside(size: u32) -> anyhow::Result<Vec<Row>> {
    let mut driver = IpSets::new();
    driver.observe()?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..FILLS {
        ours.push(fill(&mut driver, &format!("cali40bench-{round}"), size)?);
        theirs.push(fill_by_hand(&format!("hand-{round}"), size)?);
    }
    let mut rows = vec![
        Row::new(Part::Sets, format!("ip set of {size} members filled"), Unit::Millis, &ours)
            .beside("ipset restore", &theirs),
    ];
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..UPDATES {
        // Members come in one round and go in the next.
        let members: Vec<Ipv4Addr> = addresses(size..size + UPDATE).collect();
        ours.push(update(&mut driver, "cali40bench-0", &members, round.is_multiple_of(2))?);
        theirs.push(update_by_hand("hand-0", &members, round.is_multiple_of(2))?);
    }
    let what = format!("{UPDATE} members of an ip set of {size} added or deleted");
    rows.push(Row::new(Part::Sets, what, Unit::Millis, &ours).beside("ipset restore", &theirs));
    Ok(rows)
}

fn fill(driver: &mut IpSets, name: &str, size: u32) -> anyhow::Result<f64> {
    let spec = SetSpec {
        name: name.to_owned(),
        family: IpVersion::V4,
        set_type: SetType::HashIp,
        max_elements: 1 << 20,
    };
    let started = Instant::now();
    driver.set_wanted(spec, addresses(0..size).map(|addr| Member::Addr(addr.into())))?;
    apply(driver, name)?;
    Ok(millis(started.elapsed()))
}

fn update(driver: &mut IpSets, name: &str, members: &[Ipv4Addr], is_added: bool) -> anyhow::Result<f64> {
    let members = members.iter().map(|addr| Member::Addr((*addr).into()));
    let started = Instant::now();
    if is_added {
        driver.update_members(name, members, [])?;
    } else {
        driver.update_members(name, [], members)?;
    }
    apply(driver, name)?;
    Ok(millis(started.elapsed()))
}

fn apply(driver: &mut IpSets, name: &str) -> anyhow::Result<()> {
    let report = driver.apply(Phase::Provide);
    ensure!(driver.is_programmed(name), "set {name}: {:?}", report.problems);
    Ok(())
}

fn fill_by_hand(name: &str, size: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    let mut text = format!("create {name} hash:ip family inet maxelem {}\n", 1 << 20);
    for addr in addresses(0..size) {
        writeln!(text, "add {name} {addr}")?;
    }
    by_hand::run("ipset", &["restore"], &text)?;
    Ok(millis(started.elapsed()))
}

fn update_by_hand(name: &str, members: &[Ipv4Addr], is_added: bool) -> anyhow::Result<f64> {
    let verb = if is_added { "add" } else { "del" };
    let started = Instant::now();
    let text = by_hand::lines(&format!("{verb} {name} "), members);
    by_hand::run("ipset", &["restore"], &text)?;
    Ok(millis(started.elapsed()))
}

/// Addresses of 10.0.0.0/8 by number.
fn addresses(numbers: std::ops::Range<u32>) -> impl Iterator<Item = Ipv4Addr> {
    numbers.map(|number| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number))
}
