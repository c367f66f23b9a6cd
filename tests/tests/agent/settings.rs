//! Where settings come from: environment, file, `FelixConfiguration` of the node, of all nodes, built-in defaults,
//! the first that has a good value. And changing them in flight.

use libtest_mimic::Trial;
use tortie_api::control::Area;

use crate::Outcome;
use crate::scene::{Backend, NODE, Scene, eventually, expect_line, expect_same};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB};
use crate::watch::{Talk, Watch};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = crate::named(
        "settings",
        &[
            ("environment_counts_more_than_file_more_than_node_more_than_default", precedence),
            ("a_bad_value_is_reported_and_what_was_good_counts", bad_values),
            ("traffic_to_services_that_nobody_took_goes_round_in_no_circles", service_loops),
            ("a_setting_that_does_not_exist_is_reported_and_the_others_stay", unknown_setting),
        ],
    );
    trials.extend(crate::on_both(
        "settings",
        &[
            ("a_change_in_flight_interrupts_and_opens_nothing", in_flight),
            ("rules_for_ipvs_come_and_go_with_its_interface", ipvs),
        ],
    ));
    trials
}

/// A `FelixConfiguration`; its settings as YAML writes them between braces.
pub(crate) fn felix(name: &str, settings: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {{{settings}}}\n"
    )
}

/// What the kernel shows of four settings.
#[derive(Debug, Clone, Copy)]
struct Visible {
    /// `DefaultEndpointToHostAction`
    to_host: &'static str,
    /// `ChainInsertMode`: whether our hook comes before the rule of another.
    is_first: bool,
    /// `IptablesMarkMask`: its lowest bit.
    mark: &'static str,
    /// `MaxIpsetSize`
    set_size: u32,
}

fn expect_visible(scene: &Scene, visible: Visible) -> Outcome {
    let text = scene.iptables(NODE, "iptables -S cali-wl-to-host")?;
    let last = text.lines().last().unwrap_or_default();
    assert!(last.ends_with(&format!("-j {}", visible.to_host)), "{visible:?}\n{text}");
    let text = scene.iptables(NODE, "iptables -S FORWARD")?;
    let position = |word: &str| text.lines().position(|line| line.contains(word));
    let (ours, foreign) = (position("-j cali-FORWARD"), position("203.0.113.9"));
    assert!(ours.is_some() && foreign.is_some(), "{text}");
    assert_eq!(ours < foreign, visible.is_first, "{visible:?}\n{text}");
    let text = scene.iptables(NODE, "iptables-save -t filter")?;
    assert!(text.contains(&format!("--mark {0}/{0} -j", visible.mark)), "{visible:?}\n{text}");
    let text = scene.run(NODE, "ipset save")?;
    let all = text.lines().filter(|line| line.starts_with("create cali40"));
    let size = format!(" maxelem {} ", visible.set_size);
    assert!(all.clone().count() > 2 && all.clone().all(|line| line.contains(&size)), "{visible:?}\n{text}");
    Ok(())
}

fn precedence() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.iptables(NODE, "iptables -A FORWARD -s 203.0.113.9 -j ACCEPT")?;
    scene.write(
        "default.yaml",
        felix("default", "defaultEndpointToHostAction: Accept, chainInsertMode: Append, iptablesMarkMask: 0xff00000, maxIpsetSize: 1000"),
    )?;
    let node = "chainInsertMode: Insert, iptablesMarkMask: 0xff0000, maxIpsetSize: 2000";
    scene.write("node.yaml", felix("node.node-1", node))?;
    scene.write("another.yaml", felix("node.node-2", "defaultEndpointToHostAction: Return"))?;
    scene.set_config("[global]\nIptablesMarkMask = 0xff000\nMaxIpsetSize = 3000\n")?;
    scene.set_env("FELIX_MAXIPSETSIZE", "4000");
    scene.start()?;
    let all = Visible { to_host: "ACCEPT", is_first: true, mark: "0x1000", set_size: 4000 };
    expect_visible(&scene, all)?;
    scene.expect_problem(Area::Setting, &[])?;
    scene.remove("node.yaml")?;
    scene.settle()?;
    expect_visible(&scene, Visible { is_first: false, ..all })?;
    scene.remove("default.yaml")?;
    scene.settle()?;
    expect_visible(&scene, Visible { to_host: "DROP", ..all })?;
    scene.apply("node.yaml", felix("node.node-1", node))?;
    expect_visible(&scene, Visible { to_host: "DROP", ..all })?;
    scene.expect(&SHOP)
}

fn bad_values() -> Outcome {
    let mut scene = shop::stocked(Backend::Nft)?;
    scene.iptables(NODE, "iptables -A FORWARD -s 203.0.113.9 -j ACCEPT")?;
    scene.write("default.yaml", felix("default", "chainInsertMode: Append, iptablesMarkMask: 0xff000"))?;
    scene.write("node.yaml", felix("node.node-1", "chainInsertMode: Sideways, maxIpsetSize: many"))?;
    scene.set_config("DefaultEndpointToHostAction = ACCEPT\n")?;
    scene.set_env("FELIX_DEFAULTENDPOINTTOHOSTACTION", "perhaps");
    scene.set_env("FELIX_IPTABLESMARKMASK", "0x1");
    scene.start()?;
    let visible = Visible { to_host: "ACCEPT", is_first: false, mark: "0x1000", set_size: 1_048_576 };
    expect_visible(&scene, visible)?;
    for words in [
        ["FelixConfiguration node.node-1", "chainInsertMode", "Sideways"],
        ["FelixConfiguration node.node-1", "maxIpsetSize", "many"],
        ["environment", "DEFAULTENDPOINTTOHOSTACTION", "perhaps"],
        ["environment", "IPTABLESMARKMASK", "mask"],
    ] {
        scene.expect_problem(Area::Setting, &words)?;
    }
    scene.expect(&SHOP)?;
    // Mended in flight, and broken again.
    scene.apply("node.yaml", felix("node.node-1", "chainInsertMode: Insert, maxIpsetSize: 5000"))?;
    expect_visible(&scene, Visible { is_first: true, set_size: 5000, ..visible })?;
    assert_eq!(scene.problems(Area::Setting)?.len(), 2);
    let broken = ["FelixConfiguration node.node-1", "maxIpsetSize", "-1", "\"5000\" stays in force"];
    for insert in ["Insert", "Append", "Insert"] {
        // What was good stays, also when the agent starts over for another setting.
        let settings = format!("chainInsertMode: {insert}, maxIpsetSize: -1");
        scene.apply("node.yaml", felix("node.node-1", &settings))?;
        expect_visible(&scene, Visible { is_first: insert == "Insert", set_size: 5000, ..visible })?;
        scene.expect_problem(Area::Setting, &broken)?;
    }
    scene.expect(&SHOP)
}

/// Traffic that still has an address of a service where it is sent on was taken by nobody.
fn service_loops() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let services = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
                    spec: {serviceClusterIPs: [{cidr: 10.65.1.2/32}], asNumber: 64512}\n";
    scene.apply("bgp.yaml", services)?;
    let dropped = [(CLIENT, WEB, false), (CLIENT, VAULT, true), (OTHER, VAULT, false)];
    scene.expect(&dropped)?;
    scene.apply("default.yaml", felix("default", "serviceLoopPrevention: Reject"))?;
    scene.expect(&dropped)?;
    scene.apply("default.yaml", felix("default", "serviceLoopPrevention: Disabled"))?;
    scene.expect(&SHOP)?;
    scene.apply("default.yaml", felix("default", "serviceLoopPrevention: Sometimes"))?;
    scene.expect_problem(Area::Setting, &["serviceLoopPrevention", "\"Disabled\" stays in force"])?;
    scene.expect(&SHOP)?;
    scene.remove("default.yaml")?;
    scene.settle()?;
    scene.expect(&dropped)
}

fn ipvs(backend: Backend) -> Outcome {
    let scene = shop::open(backend)?;
    let before = scene.iptables(NODE, "iptables-save -t filter")?;
    let chains = |wanted: bool| {
        eventually("rules for IPVS", || {
            let text = scene.iptables(NODE, "iptables-save -t filter")?;
            let checks = text.contains("-j cali-forward-check");
            let marks = text.matches("-g cali-sm-cali").count() == 4;
            Ok((checks == wanted && marks == wanted).then_some(text))
        })
    };
    scene.run(NODE, "ip link add kube-ipvs0 type veth peer name ipvs-far")?;
    chains(true)?;
    scene.expect(&SHOP)?;
    scene.run(NODE, "ip link del kube-ipvs0")?;
    let after = chains(false)?;
    let ours = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect()
    };
    expect_same(&ours(&before), &ours(&after))?;
    scene.expect(&SHOP)
}

fn unknown_setting() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.apply("default.yaml", felix("default", "defaultEndpointToHostAction: Accept"))?;
    scene.apply("default.yaml", felix("default", "defaultEndpointToHostAktion: Return"))?;
    scene.expect_problem(Area::Datastore, &["default.yaml", "spec.defaultEndpointToHostAktion"])?;
    let text = scene.iptables(NODE, "iptables -S cali-wl-to-host")?;
    assert!(text.trim_end().ends_with("-j ACCEPT"), "{text}");
    scene.expect(&SHOP)
}

fn in_flight(backend: Backend) -> Outcome {
    let mut scene = shop::open(backend)?;
    let (open, closed) = (Watch::open(&scene, CLIENT, WEB)?, Watch::closed(&scene, OTHER, WEB)?);
    let mut talk = Talk::open(&scene, CLIENT, VAULT)?;
    for settings in [
        "iptablesMarkMask: 0xff000",
        "iptablesMarkMask: 0xff000000, chainInsertMode: Append",
        "chainInsertMode: Insert, iptablesFilterDenyAction: Reject",
        "defaultEndpointToHostAction: Accept, maxIpsetSize: 5000",
        "ipv6Support: true, iptablesFilterAllowAction: Return, disableConntrackInvalidCheck: true",
        "logSeverityScreen: Debug, iptablesRefreshInterval: 10s, deviceRouteProtocol: 99",
    ] {
        scene.apply("default.yaml", felix("default", settings))?;
        scene.expect(&SHOP).map_err(|e| format!("{settings}: {e:?}"))?;
        talk.goes_on().map_err(|e| format!("{settings}: {e:?}"))?;
        scene.expect_problem(Area::Setting, &[])?;
    }
    expect_line(&scene.run(NODE, "ip route show proto 99 10.65.1.2")?, &route_to_web())?;
    scene.remove("default.yaml")?;
    scene.settle()?;
    talk.goes_on()?;
    open.end()?;
    closed.end()?;
    scene.expect(&SHOP)
}

fn route_to_web() -> String {
    format!("10.65.1.2 dev {} scope link metric 1024", tortie_tests::lab::host_interface("shop", "web"))
}
