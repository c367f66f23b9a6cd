//! `tortiectl apply`.

use std::fs;
use std::process::Stdio;

use crate::support::{Folders, Ran, run, tortiectl};

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: allow-web
spec:
  selector: app == 'web'
  ingress:
  - action: Allow
";

const TIER: &str = "\
apiVersion: projectcalico.org/v3
kind: Tier
metadata:
  name: security
spec:
  order: 100
";

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  creationTimestamp: null
spec:
  containers:
  - name: web
status: {}
";

#[test]
fn objects_are_created_then_unchanged_then_configured() {
    let folders = Folders::new();
    let all = format!("{POLICY}---\n{TIER}---\n{POD}");
    folders.apply(&all).prints(
        "networkpolicy.projectcalico.org/allow-web created\ntier.projectcalico.org/security created\npod/web created\n",
    );
    folders.apply(&all).prints(
        "networkpolicy.projectcalico.org/allow-web unchanged\ntier.projectcalico.org/security unchanged\npod/web unchanged\n",
    );
    folders.apply(&all.replace("order: 100", "order: 200")).prints(
        "networkpolicy.projectcalico.org/allow-web unchanged\ntier.projectcalico.org/security configured\npod/web unchanged\n",
    );
    folders.run("get tier security -o name").prints("tier.projectcalico.org/security\n");
    let yaml = folders.run("get tier security -o yaml").out;
    assert!(yaml.contains("  order: 200\n"), "{yaml}");
}

#[test]
fn what_get_prints_can_be_applied_again() {
    let folders = Folders::new();
    folders.apply(&format!("{POLICY}---\n{TIER}"));
    let one = folders.run("get np allow-web -o yaml").out;
    folders.apply(&one).prints("networkpolicy.projectcalico.org/allow-web unchanged\n");
    let list = folders.run("get tier,np -o json").out;
    folders.apply(&list).prints(
        "tier.projectcalico.org/security unchanged\nnetworkpolicy.projectcalico.org/allow-web unchanged\n",
    );
}

#[test]
fn an_edit_made_to_an_old_version_is_refused() {
    let folders = Folders::new();
    folders.apply(TIER);
    let old = folders.run("get tier security -o yaml").out;
    folders.apply(&TIER.replace("100", "200"));
    let ran = folders.apply(&old.replace("100", "300"));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.starts_with("error: -:1: Tier/security was changed meanwhile: it is at version "),
        "{}",
        ran.err
    );
}

#[test]
fn an_object_that_a_person_laid_out_is_changed_in_its_file() {
    let folders = Folders::new();
    folders.put("mine/tiers.yaml", &format!("# our tiers\n{TIER}---\n{POLICY}"));
    folders.apply(&TIER.replace("100", "200")).prints("tier.projectcalico.org/security configured\n");
    assert_eq!(folders.files(), ["mine/tiers.yaml"]);
    let text = fs::read_to_string(folders.store().join("mine/tiers.yaml")).unwrap();
    assert_eq!(text, format!("# our tiers\n{}---\n{POLICY}", TIER.replace("100", "200")));
}

#[test]
fn the_namespace_option_is_for_objects_that_name_none() {
    let folders = Folders::new();
    let file = folders.write("a.yaml", &format!("{POLICY}---\n{TIER}"));
    run(folders.command(["apply", "-n", "shop", "-f"]).arg(&file)).prints(
        "networkpolicy.projectcalico.org/allow-web created\ntier.projectcalico.org/security created\n",
    );
    assert_eq!(
        folders.files(),
        ["networkpolicies.projectcalico.org/shop/allow-web.yaml", "tiers.projectcalico.org/security.yaml"]
    );
    let text = fs::read_to_string(folders.store().join(&folders.files()[0])).unwrap();
    assert!(text.contains("  namespace: shop\n"), "{text}");

    let other = folders.write("b.yaml", &POLICY.replace("name: allow-web", "name: x\n  namespace: other"));
    run(folders.command(["apply", "-n", "shop", "-f"]).arg(&other)).says(
        1,
        &format!(
            "error: {}:1: NetworkPolicy/other/x: metadata.namespace: is \"other\", which is not the namespace of -n, \
             \"shop\"\n",
            other.display()
        ),
    );
    let ran = run(folders.command(["apply", "-n", "Not A Name", "-f"]).arg(&file));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("NetworkPolicy/Not A Name/allow-web: metadata.namespace: "), "{}", ran.err);
}

#[test]
fn every_error_is_reported_with_file_line_and_field_and_the_good_documents_are_applied() {
    let folders = Folders::new();
    let file = folders.write(
        "mixed.yaml",
        &format!(
            "{}---\n{TIER}---\n{}---\nkind: Potato\napiVersion: v1\nmetadata: {{name: x}}\n---\na: [\n---\n{POD}",
            POLICY.replace("app == 'web'", "app = 'web'"),
            POLICY.replace("allow-web", "b").replace("ingress:", "ingres:"),
        ),
    );
    let missing = folders.input("missing.yaml");
    let ran = run(folders.command(["apply", "-f"]).arg(&missing).arg("-f").arg(&file));
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.out, "tier.projectcalico.org/security created\npod/web created\n");
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 5, "{}", ran.err);
    assert_eq!(lines[0], format!("error: cannot read {}: No such file or directory", missing.display()));
    for (line, beginning) in lines[1..].iter().zip([
        "6: NetworkPolicy/default/allow-web: spec.selector: ",
        "23: NetworkPolicy/default/b: spec.ingres: ",
        "26: kind: unknown kind \"Potato\"",
        "30: ",
    ]) {
        assert!(line.starts_with(&format!("error: {}:{beginning}", file.display())), "{line}");
    }
}

#[test]
fn hostile_documents_hurt_only_themselves() {
    let folders = Folders::new();
    let file = folders.input("x.yaml");
    let mut bytes = TIER.as_bytes().to_vec();
    bytes.extend(b"---\nkind: \xff\n---\na: '");
    bytes.extend(std::iter::repeat_n(b'x', 10 << 20));
    bytes.extend(format!("'\n---\n{POD}").as_bytes());
    fs::write(&file, bytes).unwrap();
    let ran = run(folders.command(["apply", "-f"]).arg(&file));
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (Some(1), "tier.projectcalico.org/security created\npod/web created\n")
    );
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ran.err);
    assert_eq!(lines[0], format!("error: {}:8: byte 0xff is not valid UTF-8", file.display()));
    assert!(lines[1].starts_with(&format!("error: {}:10: is larger than ", file.display())), "{}", lines[1]);
}

#[test]
fn a_directory_gives_its_manifests_and_with_recursive_those_below_too() {
    let folders = Folders::new();
    folders.write("a.yaml", TIER);
    folders.write("b.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}"#);
    folders.write("notes.txt", "no manifest");
    folders.write(".hidden.yaml", "a: [");
    folders.write("sub/c.yml", POLICY);
    run(folders.command(["apply", "-f"]).arg(folders.input("")))
        .prints("tier.projectcalico.org/security created\nnamespace/shop created\n");
    run(folders.command(["apply", "-R", "-f"]).arg(folders.input(""))).prints(
        "tier.projectcalico.org/security unchanged\nnamespace/shop unchanged\nnetworkpolicy.projectcalico.org/allow-web created\n",
    );
}

#[test]
fn manifests_without_objects_are_an_error() {
    let folders = Folders::new();
    folders.apply("# nothing\n---\n").says(1, "error: the manifests hold no objects\n");
    let empty = folders.input("");
    run(folders.command(["apply", "-f"]).arg(&empty))
        .says(1, &format!("error: {} holds no .yaml, .yml or .json files\n", empty.display()));
}

#[test]
fn a_broken_document_in_the_datastore_is_not_doubled() {
    let folders = Folders::new();
    let file = folders.put("tiers.yaml", &TIER.replace("order: 100", "order: first"));
    let ran = folders.apply(TIER);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let expected = format!("error: -:1: Tier/security cannot be changed in {}: ", file.display());
    assert!(ran.err.starts_with(&expected), "{}", ran.err);
    assert_eq!(folders.files(), ["tiers.yaml"]);
}

#[test]
fn writers_at_the_same_time_all_succeed() {
    let folders = Folders::new();
    let files: Vec<_> =
        (0..6).map(|n| folders.write(&format!("{n}.yaml"), &TIER.replace("100", &n.to_string()))).collect();
    let children: Vec<_> = files
        .iter()
        .map(|file| {
            let mut command = folders.command(["apply", "-f"]);
            command.arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ran: Vec<_> = children.into_iter().map(|child| Ran::of(&child.wait_with_output().unwrap())).collect();
    assert!(ran.iter().all(|ran| ran.code == Some(0)), "{ran:?}");
    let created = ran.iter().filter(|ran| ran.out == "tier.projectcalico.org/security created\n").count();
    let configured =
        ran.iter().filter(|ran| ran.out == "tier.projectcalico.org/security configured\n").count();
    assert_eq!((created, configured), (1, 5));
    assert_eq!(folders.files(), ["tiers.projectcalico.org/security.yaml"]);
}

#[test]
fn the_datastore_can_come_from_the_environment() {
    let folders = Folders::new();
    let file = folders.write("a.yaml", TIER);
    let mut command = tortiectl();
    command.env("TORTIE_DATASTORE", format!("local:{}", folders.store().display()));
    run(command.args(["apply", "-f"]).arg(&file)).prints("tier.projectcalico.org/security created\n");
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    let folders = Folders::new();
    folders.run("apply").says(2, "error: name the manifests with -f\n");
    assert_eq!(folders.run("aply -f x").code, Some(2));
    assert_eq!(folders.run("").code, Some(2));
    let ran = run(tortiectl().args(["apply", "-f", "x"]));
    ran.says(2, "error: no datastore: give --datastore local:DIR, or set TORTIE_DATASTORE\n");
    let ran = run(tortiectl().args(["apply", "-f", "x", "--datastore", "etcd:x"]));
    ran.says(2, "error: etcd:x is no datastore; use local:DIR\n");
}

#[test]
fn a_datastore_that_is_not_there_is_an_error() {
    let ran = run(tortiectl().args(["--datastore", "local:/nonexistent/x", "get", "np"]));
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(
        ran.err.starts_with("error: cannot open /nonexistent/x: No such file or directory"),
        "{}",
        ran.err
    );
}

#[test]
fn help_and_version_go_to_standard_output() {
    for line in ["--help", "--version", "help apply", "get --help"] {
        let ran = run(tortiectl().args(line.split(' ')));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{line}");
        assert!(!ran.out.is_empty(), "{line}");
    }
}
