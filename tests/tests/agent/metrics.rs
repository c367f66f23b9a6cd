//! What Prometheus is told, asked for with `curl` on the node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use libtest_mimic::{Failed, Trial};
use tortie_api::control::Area;

use crate::Outcome;
use crate::refused::doctor_restore;
use crate::scene::{Backend, NODE, Scene, eventually};
use crate::settings::felix;
use crate::shop::{self, SHOP, allow_to, policy};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::named(
        "metrics",
        &[
            ("nobody_is_told_anything_unless_a_setting_says_so", off_and_on),
            ("what_others_do_to_our_tables_is_counted", foreign_changes),
            ("a_port_in_use_is_named_in_status_and_is_served_once_it_is_free", port_in_use),
            ("a_port_that_is_none_leaves_the_one_before_and_is_named_in_status", bad_port),
            ("who_asks_for_tls_gets_no_plain_metrics", tls),
            ("clients_that_say_nothing_are_few_at_a_time_and_are_dropped", silent_clients),
        ],
    );
    trials.extend(crate::on_both(
        "metrics",
        &[
            ("values_follow_what_is_in_force", values_follow),
            ("a_quarantined_chain_shows_until_it_is_mended", quarantine),
        ],
    ));
    trials
}

const ENABLED: &str = "FELIX_PROMETHEUSMETRICSENABLED";

/// The page of metrics: its values by name with labels, without fractions. Nothing if nobody answers.
fn page(scene: &Scene, address: &str) -> Result<Option<BTreeMap<String, i64>>, Failed> {
    let url = format!("http://{address}/metrics");
    let curl = ["-sS", "--max-time", "5", "-w", "%{stderr}%{http_code} %{content_type}", &url];
    let output = scene.lab.node(NODE)?.run("curl", &curl)?;
    if !output.status.success() {
        return Ok(None);
    }
    let (text, seen) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    assert_eq!(seen, "200 text/plain; version=0.0.4", "{text}");
    let mut values = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').ok_or_else(|| format!("no metric: {line}"))?;
        let whole = value.split('.').next().unwrap_or_default().parse()?;
        assert!(values.insert(name.to_owned(), whole).is_none(), "{name} is there twice");
    }
    Ok(Some(values))
}

/// The values at Felix's own port, once they are as wanted.
fn values_when(
    scene: &Scene,
    what: &str,
    is_wanted: impl Fn(&BTreeMap<String, i64>) -> bool,
) -> Result<BTreeMap<String, i64>, Failed> {
    let mut last = None;
    eventually(what, || {
        last = page(scene, "127.0.0.1:9091")?;
        Ok(last.clone().filter(&is_wanted))
    })
    .map_err(|error| format!("{error:?}, last: {last:#?}").into())
}

fn off_and_on() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    assert_eq!(page(&scene, "127.0.0.1:9091")?, None);
    scene.apply("felix.yaml", felix("default", "prometheusMetricsEnabled: true"))?;
    // No host stands for all addresses.
    for address in ["127.0.0.1:9091", "[::1]:9091"] {
        let values = eventually("metrics", || page(&scene, address))?;
        assert_eq!(values["felix_host{host=\"node-1\"}"], 1);
    }
    let refused = scene.run(NODE, "curl -sS -o /dev/null -w %{http_code} http://127.0.0.1:9091/liveness")?;
    assert_eq!(refused, "404");
    let settings =
        "prometheusMetricsEnabled: true, prometheusMetricsPort: 9191, prometheusMetricsHost: 127.0.0.1";
    scene.apply("felix.yaml", felix("default", settings))?;
    eventually("metrics at the new port", || page(&scene, "127.0.0.1:9191"))?;
    assert_eq!(page(&scene, "[::1]:9191")?, None, "at the host only that is named");
    assert_eq!(page(&scene, "127.0.0.1:9091")?, None);
    scene.remove("felix.yaml")?;
    eventually("nobody answers", || Ok(page(&scene, "127.0.0.1:9191")?.is_none().then_some(())))?;
    scene.expect(&SHOP)
}

/// Our sets as `ipset` lists them, of one family.
fn sets_listed(scene: &Scene, prefix: &str) -> Result<i64, Failed> {
    let names = scene.run(NODE, "ipset list -n")?;
    Ok(names.lines().filter(|name| name.starts_with(prefix)).count().try_into()?)
}

fn values_follow(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    scene.set_env(ENABLED, "true");
    scene.start()?;
    let before = values_when(&scene, "all is in force", |values| values["tortie_applied"] == 1)?;
    let status = scene.status(NODE)?;
    assert_eq!(before["felix_resync_state"], 3);
    assert_eq!(before["felix_active_local_endpoints"], 4);
    assert_eq!(before["felix_active_local_policies"], 2);
    assert_eq!(before["felix_ipsets_calico{ip_version=\"inet\"}"], sets_listed(&scene, "cali40")?);
    assert_eq!(before["felix_ipsets_calico{ip_version=\"inet6\"}"], sets_listed(&scene, "cali60")?);
    assert!(before["felix_iptables_restore_calls"] > 0);
    assert_eq!(before["felix_iptables_restore_errors"], 0);
    let info = format!("tortie_info{{backend=\"{}\",version=\"{}\"}}", backend.name(), status.version);
    assert_eq!(before[&info], 1);
    for name in ["datastore", "kernel", "policy", "setting"] {
        assert_eq!(before[&format!("tortie_problems{{area=\"{name}\"}}")], 0, "{name}");
    }

    scene.apply("more.yaml", allow_to("other", "vault"))?;
    let after = values_when(&scene, "metrics", |_| true)?;
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("felix_active_local_policies"), 1);
    assert_eq!(grown("felix_ipsets_calico{ip_version=\"inet\"}"), 1);
    assert_eq!(after["felix_ipsets_calico{ip_version=\"inet\"}"], sets_listed(&scene, "cali40")?);
    assert!(grown("felix_iptables_restore_calls") >= 1);
    assert!(grown("tortie_apply_milliseconds_count") >= 1);
    assert!(after["tortie_apply_milliseconds_sum"] > 0);
    assert_eq!(
        after["tortie_apply_milliseconds_bucket{le=\"+Inf\"}"],
        after["tortie_apply_milliseconds_count"]
    );

    scene.remove("more.yaml")?;
    scene.write("bad.yaml", "kind: [\n")?;
    let end = values_when(&scene, "a broken document is counted", |values| {
        values["tortie_problems{area=\"datastore\"}"] > 0 && values["felix_active_local_policies"] == 2
    })?;
    assert_eq!(end["tortie_applied"], 1, "it stops nothing");
    Ok(())
}

fn foreign_changes() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env(ENABLED, "true");
    scene.start()?;
    let before = values_when(&scene, "metrics", |_| true)?["tortie_foreign_changes"];
    scene.iptables(NODE, "iptables -F cali-FORWARD")?;
    values_when(&scene, "it is counted", |values| values["tortie_foreign_changes"] > before)?;
    scene.expect_soon(&SHOP)
}

fn quarantine(backend: Backend) -> Outcome {
    let mut scene = shop::stocked(backend)?;
    doctor_restore(&mut scene, backend, r#"grep -q 'destination-ports 4242' "$input""#)?;
    scene.set_env(ENABLED, "true");
    scene.start()?;
    let before = values_when(&scene, "metrics", |_| true)?;
    assert_eq!(before["tortie_quarantined_objects"], 0);
    let spec = "  selector: app == 'web'\n  ingress:\n  - action: Allow\n    protocol: TCP\n    source: {selector: app == 'client'}\n    destination: {ports: [4242, 80]}\n";
    let refused = spec.replace("[4242, 80]", "[4242]");
    scene.write("web.yaml", policy("web-in", &refused))?;
    let during = values_when(&scene, "the chain shows", |values| values["tortie_quarantined_objects"] > 0)?;
    assert_eq!(during["tortie_applied"], 0);
    assert!(during["tortie_problems{area=\"kernel\"}"] >= 1);
    assert!(during["felix_iptables_restore_errors"] > before["felix_iptables_restore_errors"]);
    assert!(during["felix_iptables_restore_calls"] > during["felix_iptables_restore_errors"]);
    scene.apply("web.yaml", allow_to("web", "client"))?;
    let after = values_when(&scene, "it is mended", |values| values["tortie_applied"] > 0)?;
    assert_eq!(after["tortie_quarantined_objects"], 0);
    assert_eq!(after["tortie_problems{area=\"kernel\"}"], 0);
    scene.expect(&SHOP)
}

fn port_in_use() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env(ENABLED, "true");
    scene.set_env("FELIX_PROMETHEUSMETRICSHOST", "127.0.0.1");
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9091));
    let taken = scene.lab.node(NODE)?.netns().enter(|| TcpListener::bind(at))??;
    scene.start()?;
    eventually("status names it", || {
        Ok(scene.expect_problem(Area::Setting, &["PrometheusMetricsPort", "127.0.0.1:9091", "in use"]).ok())
    })?;
    scene.expect(&SHOP)?;
    drop(taken);
    values_when(&scene, "metrics", |values| values["tortie_problems{area=\"setting\"}"] == 0)?;
    scene.expect_problem(Area::Setting, &[])
}

fn bad_port() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let port = |port: &str| {
        felix("default", &format!("prometheusMetricsEnabled: true, prometheusMetricsPort: {port}"))
    };
    scene.apply("felix.yaml", port("9191"))?;
    eventually("metrics", || page(&scene, "127.0.0.1:9191"))?;
    scene.apply("felix.yaml", port("70000"))?;
    scene.expect_problem(Area::Setting, &["FelixConfiguration default", "prometheusMetricsPort", "70000"])?;
    let values = eventually("it goes on", || page(&scene, "127.0.0.1:9191"))?;
    assert_eq!(values["tortie_problems{area=\"setting\"}"], 1);
    Ok(())
}

fn tls() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let plain = "prometheusMetricsEnabled: true";
    scene.apply("felix.yaml", felix("default", plain))?;
    values_when(&scene, "metrics", |_| true)?;
    let tls = format!("{plain}, prometheusMetricsCertFile: /tls/cert, prometheusMetricsKeyFile: /tls/key");
    scene.apply("felix.yaml", felix("default", &tls))?;
    eventually("nobody answers", || Ok(page(&scene, "127.0.0.1:9091")?.is_none().then_some(())))?;
    scene.expect_problem(Area::Setting, &["prometheusMetricsCertFile", "TLS is not in this release"])
}

fn silent_clients() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.set_env(ENABLED, "true");
    scene.start()?;
    values_when(&scene, "metrics", |_| true)?;
    let files = format!("/proc/{}/fd", scene.lab.agent(NODE)?.pid());
    let open_files = || Ok::<_, Failed>(std::fs::read_dir(&files)?.count());
    let before = open_files()?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 9091));
    let connect = || (0..60).map(|_| TcpStream::connect(at)).collect::<Result<Vec<_>, _>>();
    let silent = scene.lab.node(NODE)?.netns().enter(connect)??;
    eventually("some are served", || Ok((open_files()? > before + 16).then_some(())))?;
    scene.apply("guard.yaml", allow_to("vault", "other"))?;
    assert!(open_files()? < before + silent.len() * 3 / 4, "of sixty only some are served at a time");
    values_when(&scene, "they make room", |_| true)?;
    drop(silent);
    scene.apply("guard.yaml", allow_to("vault", "client"))?;
    scene.expect(&SHOP)
}
