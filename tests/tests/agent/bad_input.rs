//! Manifests that cannot be used: each is reported with its file and field, its last good version stays in force,
//! and nothing else is hurt.

use std::fmt::Write as _;
use std::fs;

use libtest_mimic::Trial;
use tortie_api::control::Area;

use crate::Outcome;
use crate::scene::{Backend, NODE};
use crate::shop::{self, CLIENT, OTHER, SHOP, VAULT, WEB, allow_to, policy};

/// The largest document that is read is 3 MiB.
const TEN_MEGABYTES: usize = 10 << 20;

/// A document that takes the place of the policy `web-in`.
struct Broken {
    name: &'static str,
    text: fn() -> Vec<u8>,
    /// What the report must say besides the file.
    words: &'static [&'static str],
}

const BROKEN: [Broken; 11] = [
    Broken {
        name: "yaml_that_does_not_parse",
        text: || policy("web-in", "  selector: [app\n  ingress: []\n").into(),
        words: &["web.yaml:8", "web-in"],
    },
    Broken {
        name: "an_unknown_field",
        text: || policy("web-in", "  selector: app == 'web'\n  ingresss: []\n").into(),
        words: &["web.yaml:8", "web-in", "spec.ingresss"],
    },
    Broken {
        name: "an_unknown_field_deep_inside",
        text: || {
            policy("web-in", "  ingress:\n  - action: Allow\n    source:\n      selectr: all()\n").into()
        },
        words: &["web.yaml:10", "web-in", "spec.ingress[0].source.selectr"],
    },
    Broken {
        name: "an_unknown_kind",
        text: || allow_to("web", "other").replace("kind: NetworkPolicy", "kind: NetworkPolice").into(),
        words: &["web.yaml:2", "kind", "NetworkPolice"],
    },
    Broken {
        name: "a_selector_with_a_syntax_error",
        text: || policy("web-in", "  selector: app == 'web' &&\n  ingress: []\n").into(),
        words: &["web.yaml:7", "web-in", "spec.selector"],
    },
    Broken {
        name: "an_impossible_cidr",
        text: || {
            policy("web-in", "  ingress:\n  - action: Allow\n    source:\n      nets: [10.65.0.0/33]\n")
                .into()
        },
        words: &["web.yaml:10", "web-in", "spec.ingress[0].source.nets[0]", "10.65.0.0/33"],
    },
    Broken {
        name: "a_port_range_upside_down",
        text: || {
            policy(
                "web-in",
                "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination:\n      ports: ['90:80']\n",
            )
            .into()
        },
        words: &["web.yaml:11", "web-in", "spec.ingress[0].destination.ports[0]", "90:80"],
    },
    Broken {
        name: "a_value_of_another_type",
        text: || policy("web-in", "  order: first\n  selector: app == 'web'\n").into(),
        words: &["web.yaml:7", "web-in", "spec.order"],
    },
    Broken {
        name: "invalid_utf8",
        text: || {
            let text = allow_to("web", "oth?r").into_bytes();
            text.into_iter().map(|byte| if byte == b'?' { 0xff } else { byte }).collect()
        },
        words: &["web.yaml:11", "0xff", "UTF-8"],
    },
    Broken {
        name: "one_document_of_ten_megabytes",
        text: || {
            let nets = "        - 10.65.0.0/16\n".repeat(TEN_MEGABYTES / 23);
            policy("web-in", &format!("  ingress:\n  - action: Allow\n    source:\n      nets:\n{nets}"))
                .into()
        },
        words: &["web.yaml:1", "web-in", "larger than"],
    },
    Broken {
        name: "text_instead_of_a_list",
        text: || policy("web-in", "  selector: app == 'web'\n  types: Ingress\n").into(),
        words: &["web.yaml:8", "web-in", "spec.types"],
    },
];

pub(crate) fn trials() -> Vec<Trial> {
    let broken = BROKEN.into_iter().map(|case| {
        Trial::test(format!("bad_input::{}_leaves_the_last_good_version_in_force", case.name), move || {
            stays_in_force(&case)
        })
    });
    let others = crate::named(
        "bad_input",
        &[
            ("at_the_start_every_broken_file_is_reported_and_the_rest_is_enforced", broken_at_the_start),
            ("of_two_documents_with_one_name_the_first_stays_in_force", duplicate_names),
            ("a_policy_in_a_missing_tier_hurts_no_other_and_counts_once_the_tier_is_there", missing_tier),
            ("ten_megabytes_in_many_documents_are_read", many_documents),
            ("files_that_vanish_while_being_read_do_no_harm", vanishing_files),
            ("a_broken_document_hurts_no_other_in_its_file", broken_among_good),
        ],
    );
    broken.chain(others).collect()
}

fn stays_in_force(case: &Broken) -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.apply("web.yaml", (case.text)())?;
    scene.expect_problem(Area::Datastore, case.words)?;
    scene.expect(&SHOP)?;
    // Everything else goes on to change.
    scene.apply("guard.yaml", allow_to("vault", "other"))?;
    scene.expect(&[
        (CLIENT, VAULT, false),
        (OTHER, VAULT, true),
        (CLIENT, WEB, true),
        (OTHER, WEB, false),
    ])?;
    scene.apply("web.yaml", allow_to("web", "other"))?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true)])
}

fn broken_at_the_start() -> Outcome {
    let mut scene = shop::stocked(Backend::Legacy)?;
    for case in &BROKEN {
        scene.write(&format!("{}.yaml", case.name), rename((case.text)(), case.name))?;
    }
    scene.start()?;
    scene.expect(&SHOP)?;
    let problems = scene.problems(Area::Datastore)?;
    assert_eq!(problems.len(), BROKEN.len(), "{problems:#?}");
    let status = scene.lab.ctl(NODE, &["status"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    for case in &BROKEN {
        let fitting = problems.iter().filter(|p| p.contains(&format!("/{}.yaml:", case.name)));
        assert_eq!(fitting.count(), 1, "{}: {problems:#?}", case.name);
        assert_eq!(status.matches(&format!("/{}.yaml", case.name)).count(), 1, "{status}");
    }
    let mended = BROKEN.iter().find(|case| case.name == "an_unknown_field").ok_or("no such case")?;
    let text = policy(&mended.name.replace('_', "-"), "  selector: app == 'client'\n  ingress: []\n");
    scene.apply(&format!("{}.yaml", mended.name), text)?;
    scene.expect(&[(OTHER, CLIENT, false), (CLIENT, WEB, true)])?;
    assert_eq!(scene.problems(Area::Datastore)?.len(), BROKEN.len() - 1);
    Ok(())
}

/// Gives the policy of a document another name.
fn rename(text: Vec<u8>, name: &str) -> Vec<u8> {
    let (from, to) = (b"web-in".as_slice(), name.replace('_', "-"));
    match text.windows(from.len()).position(|window| window == from) {
        Some(at) => [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat(),
        None => text,
    }
}

fn duplicate_names() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.apply("again.yaml", allow_to("web", "other"))?;
    scene.expect_problem(Area::Datastore, &["again.yaml:1", "web-in", "web.yaml:1"])?;
    scene.expect(&SHOP)?;
    // The first goes, the second takes over.
    scene.remove("web.yaml")?;
    scene.settle()?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, true), (CLIENT, VAULT, true), (OTHER, VAULT, false)])
}

fn missing_tier() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let deny = policy(
        "nowhere.web-in",
        "  tier: nowhere\n  selector: app == 'web'\n  types: [Ingress]\n  ingress:\n  - action: Deny\n",
    );
    scene.apply("tiered.yaml", deny)?;
    scene.expect_problem(Area::Policy, &["tiered.yaml:", "nowhere.web-in", "spec.tier"])?;
    scene.expect(&SHOP)?;
    scene.apply("guard.yaml", allow_to("vault", "other"))?;
    scene.expect(&[(CLIENT, VAULT, false), (OTHER, VAULT, true)])?;
    let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: nowhere}\nspec: {order: 10}\n";
    scene.apply("tier.yaml", tier)?;
    scene.expect_problem(Area::Policy, &[])?;
    scene.expect(&[(CLIENT, WEB, false), (OTHER, WEB, false), (OTHER, VAULT, true)])?;
    scene.remove("tier.yaml")?;
    scene.settle()?;
    scene.expect_problem(Area::Policy, &["tiered.yaml:", "nowhere.web-in", "spec.tier"])?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false)])
}

fn many_documents() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let mut text = String::new();
    for number in 0..100 {
        write!(
            text,
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata:\n  name: set-{number}\n  annotations:\n    note: {}\nspec:\n  nets: [192.0.2.{number}/32]\n---\n",
            "x".repeat(TEN_MEGABYTES / 100)
        )?;
    }
    assert!(text.len() > TEN_MEGABYTES);
    scene.apply("many.yaml", text + &policy("client-in", "  selector: app == 'client'\n  ingress: []\n"))?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&[(OTHER, CLIENT, false), (CLIENT, WEB, true), (OTHER, WEB, false)])
}

fn vanishing_files() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    let folder = scene.datastore().clone();
    let large = format!("# {}\n", "x".repeat(1 << 20))
        + &policy("client-in", "  selector: app == 'client'\n  ingress: []\n");
    let (file, link, target) =
        (folder.join("brief.yaml"), folder.join("link.yaml"), scene.lab.dir().join("target"));
    for round in 0..60 {
        fs::write(&file, &large)?;
        fs::write(&target, &large)?;
        std::os::unix::fs::symlink(&target, &link)?;
        // Every few rounds the agent is certain to look while they are there, or just gone.
        if round % 10 == 0 {
            scene.settle()?;
        }
        fs::remove_file(&target)?;
        fs::remove_file(&file)?;
        if round % 10 == 5 {
            scene.settle()?;
        }
        fs::remove_file(&link)?;
    }
    scene.settle()?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&SHOP)?;
    // A folder that goes with all that is in it, while it comes in.
    for _ in 0..20 {
        fs::create_dir(folder.join("sub"))?;
        fs::write(folder.join("sub/brief.yaml"), &large)?;
        fs::remove_dir_all(folder.join("sub"))?;
    }
    scene.settle()?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&SHOP)?;
    assert_eq!(scene.status(NODE)?.policies, 2);
    Ok(())
}

fn broken_among_good() -> Outcome {
    let mut scene = shop::open(Backend::Nft)?;
    scene.remove("web.yaml")?;
    scene.remove("guard.yaml")?;
    let file = |middle: &str| allow_to("web", "client") + middle + &allow_to("vault", "client");
    scene.apply("all.yaml", file("kind: [\n---\n"))?;
    scene.expect_problem(Area::Datastore, &["all.yaml:13"])?;
    scene.expect(&SHOP)?;
    scene.apply("all.yaml", file(&policy("client-in", "  selector: app == 'client'\n  ingress: []\n")))?;
    scene.expect_problem(Area::Datastore, &[])?;
    scene.expect(&[(CLIENT, WEB, true), (OTHER, WEB, false), (OTHER, VAULT, false), (OTHER, CLIENT, false)])
}
