//! The steps between what is there and what is wanted, without a kernel.

use std::collections::BTreeMap;

use super::state::{Contents, Ownership, Steps, Wanted, steps};
use super::wire::Found;
use super::*;

fn route(dest: &str, metric: u32, protocol: u8) -> Found {
    Found { dest: dest.parse().unwrap(), metric, tos: 0, protocol, scope: 253, gateway: None, src: None }
}

fn wanted(dests: &[&str]) -> Wanted {
    let routes = dests.iter().map(|dest| RouteSpec::to(dest.parse().unwrap())).collect();
    Wanted::new(IpVersion::V4, routes, Vec::new())
}

fn after(seconds: u64, wanted: &Wanted, there: Vec<Found>, config: &RoutesConfig) -> Steps {
    let first_seen = Instant::now();
    let now = first_seen + Duration::from_secs(seconds);
    let contents = Contents { routes: there.into_iter().collect(), neighbours: BTreeMap::new() };
    let ownership = Ownership { config, has_prefix: true };
    steps(wanted, &contents, first_seen, now, &ownership, &|dest| wanted.has(dest))
}

fn deleted(steps: &Steps) -> Vec<String> {
    steps.delete.iter().map(|route| format!("{} {}", route.dest, route.metric)).collect()
}

#[test]
fn unknown_routes_stay_for_the_grace_and_go_then() {
    let config = RoutesConfig::default();
    let there = || vec![route("10.0.0.9/32", 0, 3)];
    let early = after(9, &wanted(&[]), there(), &config);
    assert!(early.is_empty() && early.not_before.is_some());
    let late = after(10, &wanted(&[]), there(), &config);
    assert_eq!(deleted(&late), ["10.0.0.9/32 0"]);
    assert_eq!(late.not_before, None);
}

#[test]
fn another_route_to_a_wanted_destination_goes_without_grace() {
    let steps =
        after(0, &wanted(&["10.0.0.1/32"]), vec![route("10.0.0.1/32", 0, 3)], &RoutesConfig::default());
    assert_eq!(steps.add, [(route("10.0.0.1/32", 1024, 80), false)]);
    assert_eq!(deleted(&steps), ["10.0.0.1/32 0"]);
}

#[test]
fn a_route_in_the_same_slot_is_replaced_and_not_deleted() {
    let steps =
        after(99, &wanted(&["10.0.0.1/32"]), vec![route("10.0.0.1/32", 1024, 3)], &RoutesConfig::default());
    assert_eq!(steps.add, [(route("10.0.0.1/32", 1024, 80), true)]);
    assert!(steps.delete.is_empty());
}

#[test]
fn routes_of_the_kernel_and_of_a_bgp_daemon_stay() {
    let there = vec![route("10.0.0.0/24", 0, 2), route("10.9.0.0/24", 32, 12)];
    assert!(after(99, &wanted(&[]), there, &RoutesConfig::default()).is_empty());
}

#[test]
fn external_routes_stay_when_so_configured_and_ours_go() {
    let config = RoutesConfig { remove_external_routes: false, ..RoutesConfig::default() };
    let there = vec![route("10.0.0.8/32", 0, 3), route("10.0.0.9/32", 1024, 80)];
    assert_eq!(deleted(&after(99, &wanted(&[]), there, &config)), ["10.0.0.9/32 1024"]);
}

#[test]
fn each_driver_takes_its_own_family() {
    let routes =
        || vec![RouteSpec::to("10.0.0.1/32".parse().unwrap()), RouteSpec::to("fd00::1/128".parse().unwrap())];
    let mac = MacAddr::new([2, 0, 0, 0, 0, 1]);
    let neighbours = || vec![("10.0.0.1".parse().unwrap(), mac), ("fd00::1".parse().unwrap(), mac)];
    let v4 = Wanted::new(IpVersion::V4, routes(), neighbours());
    let v6 = Wanted::new(IpVersion::V6, routes(), neighbours());
    assert_eq!((v4.routes.len(), v4.neighbours.len()), (1, 1));
    assert_eq!((v6.routes.len(), v6.neighbours.len()), (1, 0), "no permanent entries for IPv6");
}

#[test]
fn metric_0_is_1024_for_ipv6() {
    let mut spec = RouteSpec::to("fd00::1/128".parse().unwrap());
    spec.metric = 0;
    let wanted = Wanted::new(IpVersion::V6, vec![spec], Vec::new());
    assert_eq!(wanted.routes.first().unwrap().metric, 1024);
}
