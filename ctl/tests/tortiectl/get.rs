//! `tortiectl get`.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use crate::support::{Folders, Ran, run};

const SHOP: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: allow-web, namespace: shop, labels: {app: web}}
spec: {order: 10.5, selector: app == 'web'}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: default-deny}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db, tier: back}, matchExpressions: [{key: env, operator: In, values: [a, b]}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.deny-all}
spec: {tier: security, order: 1}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool}
spec: {cidr: 10.244.0.0/16, natOutgoing: true, vxlanMode: CrossSubnet}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: a}, {name: b}]
status:
  phase: Running
  podIP: 10.244.1.2
  podIPs: [{ip: 10.244.1.2}]
  containerStatuses: [{ready: true, restartCount: 2}, {ready: false, restartCount: 1}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}, {port: 53, protocol: UDP}], selector: {app: web}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: internet}
spec: {nets: [0.0.0.0/0, 192.0.2.1]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node1-eth0}
spec: {node: node1, interfaceName: eth0, expectedIPs: [192.0.2.7, 192.0.2.8]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: node1-k8s-web--0-eth0, namespace: shop}
spec:
  orchestrator: k8s
  node: node1
  pod: web-0
  endpoint: eth0
  ipNetworks: [10.244.1.2/32]
  interfaceName: cali12345678901
  profiles: [kns.shop]
";

fn shop() -> Folders {
    let folders = Folders::new();
    folders.put("shop.yaml", SHOP);
    folders
}

#[test]
fn tables_read_as_kubectls() {
    let folders = shop();
    for (line, table) in [
        ("get np -n shop", "NAME        TIER      ORDER\nallow-web   default   10.5\n"),
        ("get np", "NAME           TIER      ORDER\ndefault-deny   default   <none>\n"),
        (
            "get networkpolicies.projectcalico.org -A",
            "\
NAMESPACE   NAME           TIER      ORDER
default     default-deny   default   <none>
shop        allow-web      default   10.5
",
        ),
        (
            "get netpol -n shop",
            "\
NAME       POD-SELECTOR                    AGE
allow-db   app=db,tier=back,env in (a,b)   <unknown>
",
        ),
        (
            "get gnp",
            "NAME                TIER       ORDER   AGE\nsecurity.deny-all   security   1       <unknown>\n",
        ),
        (
            "get tiers",
            "NAME       ORDER   DEFAULTACTION   STATUS\nsecurity   100     Deny            <none>\n",
        ),
        (
            "get ippools",
            "\
NAME   CIDR            VXLAN         IPIP    NAT    ALLOCATABLE   AGE
pool   10.244.0.0/16   CrossSubnet   Never   true   <none>        <unknown>
",
        ),
        ("get ns", "NAME   STATUS   AGE\nshop   Active   <unknown>\n"),
        (
            "get pods -A",
            "\
NAMESPACE   NAME    READY   STATUS    RESTARTS   AGE
shop        web-0   1/2     Running   3          <unknown>
",
        ),
        (
            "get svc -n shop",
            "\
NAME   TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)               AGE
web    ClusterIP   10.96.0.1    <none>        80:30080/TCP,53/UDP   <unknown>
",
        ),
        ("get hep", "NAME         NODE    INTERFACE\nnode1-eth0   node1   eth0\n"),
        (
            "get wep -n shop",
            "\
NAME                    WORKLOAD   NODE    NETWORKS        INTERFACE
node1-k8s-web--0-eth0   web-0      node1   10.244.1.2/32   cali12345678901
",
        ),
        ("get ns --no-headers", "shop   Active   <unknown>\n"),
    ] {
        let expected =
            table.replace("POD-SELECTOR                      AGE", "POD-SELECTOR                    AGE");
        let ran = folders.run(line);
        assert_eq!(
            (ran.out.as_str(), ran.err.as_str(), ran.code),
            (expected.as_str(), "", Some(0)),
            "{line}"
        );
    }
}

const CLUSTER: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node1, labels: {node-role.kubernetes.io/control-plane: ''}}
spec: {unschedulable: true}
status:
  conditions: [{type: Ready, status: 'True'}]
  addresses: [{type: InternalIP, address: 192.0.2.7}]
  nodeInfo: {kubeletVersion: v1.33.0}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node1}
spec: {bgp: {ipv4Address: 192.0.2.7/24}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x}
addressType: IPv4
ports: [{port: 80}, {port: 443}]
endpoints: [{addresses: [10.0.0.1, 10.0.0.2]}, {addresses: [10.0.0.3]}, {addresses: [10.0.0.4]}]
---
apiVersion: v1
kind: Service
metadata: {name: lb}
spec: {type: LoadBalancer, clusterIP: None, ports: [{port: 80}]}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: a}
status: {conditions: [{type: Ready, status: 'True', reason: Enforced}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {containers: [{name: a}]}
status: {phase: Pending, containerStatuses: [{state: {waiting: {reason: ErrImagePull}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, deletionTimestamp: '2026-01-01T00:00:00Z'}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: all}
spec: {podSelector: {}}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: p}
spec: {labelsToApply: {a: b, c: d}}
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: on-trial}
spec: {order: 3, ingress: [{action: Deny}]}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: away}
spec: {tier: security, stagedAction: Delete}
---
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: kube}
spec: {podSelector: {}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec: {tier: Admin, priority: 10, subject: {namespaces: {}}}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: guard}
spec: {priority: 20, subject: {namespaces: {}}}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}}
";

#[test]
fn tables_show_what_the_cluster_says() {
    let folders = Folders::new();
    folders.put("cluster.yaml", CLUSTER);
    for (line, table) in [
        (
            "get knode",
            "\
NAME    STATUS                     ROLES           AGE         VERSION
node1   Ready,SchedulingDisabled   control-plane   <unknown>   v1.33.0
",
        ),
        (
            "get node.projectcalico.org -o wide",
            "\
NAME    AGE         ASN      IPV4           IPV6
node1   <unknown>   <none>   192.0.2.7/24   <none>
",
        ),
        ("get sa", "NAME   SECRETS   AGE\nweb    0         <unknown>\n"),
        (
            "get endpointslices",
            "\
NAME    ADDRESSTYPE   PORTS    ENDPOINTS                                AGE
web-x   IPv4          80,443   10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...   <unknown>
",
        ),
        (
            "get svc",
            "\
NAME   TYPE           CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE
lb     LoadBalancer   None         <pending>     80/TCP    <unknown>
",
        ),
        ("get tier", "NAME   ORDER    DEFAULTACTION   STATUS\na      <none>   Deny            Enforced\n"),
        (
            "get po",
            "\
NAME   READY   STATUS         RESTARTS   AGE
a      0/1     ErrImagePull   0          <unknown>
b      0/0     Terminating    0          <unknown>
",
        ),
        ("get netpol", "NAME   POD-SELECTOR   AGE\nall    <none>         <unknown>\n"),
        ("get scnp", "NAME       TIER      ORDER\non-trial   default   3\n"),
        ("get sgnp", "NAME   TIER       ORDER\naway   security   <none>\n"),
        ("get sknp", "NAME   AGE\nkube   <unknown>\n"),
        ("get kcnp", "NAME    TIER    PRIORITY   AGE\nguard   Admin   10         <unknown>\n"),
        ("get anp", "NAME    PRIORITY   AGE\nguard   20         <unknown>\n"),
        ("get banp", "NAME      AGE\ndefault   <unknown>\n"),
        ("get profile -o wide", "NAME   AGE         LABELS\np      <unknown>   a=b,c=d\n"),
    ] {
        let ran = folders.run(line);
        assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), (table, "", Some(0)), "{line}");
    }
}

#[test]
fn an_object_with_a_time_of_creation_has_an_age() {
    let folders = Folders::new();
    folders.put(
        "a.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, creationTimestamp: '2000-01-01T00:00:00Z'}\n",
    );
    let ran = folders.run("get ns --no-headers");
    let age = ran.out.trim_end().strip_prefix("a   Active   ").and_then(|age| age.strip_suffix('y'));
    assert!(age.is_some_and(|years| years.parse::<u32>().is_ok()), "{}", ran.out);
}

#[test]
fn wide_tables_have_calicoctls_columns_too() {
    let folders = shop();
    for (line, table) in [
        (
            "get np -n shop -o wide",
            "NAME        TIER      ORDER   SELECTOR\nallow-web   default   10.5    app == 'web'\n",
        ),
        ("get gns -o wide", "NAME       AGE         NETS\ninternet   <unknown>   0.0.0.0/0,192.0.2.1/32\n"),
        (
            "get hep -o wide",
            "\
NAME         NODE    INTERFACE   IPS                   PROFILES
node1-eth0   node1   eth0        192.0.2.7,192.0.2.8   <none>
",
        ),
        (
            "get pod web-0 -n shop -o wide",
            "\
NAME    READY   STATUS    RESTARTS   AGE         IP           NODE    NOMINATED NODE   READINESS GATES
web-0   1/2     Running   3          <unknown>   10.244.1.2   node1   <none>           <none>
",
        ),
    ] {
        let ran = folders.run(line);
        assert_eq!((ran.out.as_str(), ran.err.as_str(), ran.code), (table, "", Some(0)), "{line}");
    }
}

#[test]
fn a_table_for_each_kind_with_the_kind_in_the_names() {
    shop().run("get policies,ns -n shop").prints(
        "\
NAME                                        TIER      ORDER
networkpolicy.projectcalico.org/allow-web   default   10.5

NAME                                                      TIER       ORDER   AGE
globalnetworkpolicy.projectcalico.org/security.deny-all   security   1       <unknown>

NAME                                       POD-SELECTOR                    AGE
networkpolicy.networking.k8s.io/allow-db   app=db,tier=back,env in (a,b)   <unknown>

NAME             STATUS   AGE
namespace/shop   Active   <unknown>
",
    );
}

#[test]
fn all_is_every_kind_that_there_is() {
    shop().run("get all -A -o name").prints(
        "\
networkpolicy.projectcalico.org/default-deny
networkpolicy.projectcalico.org/allow-web
globalnetworkpolicy.projectcalico.org/security.deny-all
globalnetworkset.projectcalico.org/internet
tier.projectcalico.org/security
ippool.projectcalico.org/pool
workloadendpoint.projectcalico.org/node1-k8s-web--0-eth0
hostendpoint.projectcalico.org/node1-eth0
networkpolicy.networking.k8s.io/allow-db
namespace/shop
pod/web-0
service/web
",
    );
}

#[test]
fn one_object_is_printed_as_it_is_and_several_as_a_list() {
    let folders = shop();
    let ran = folders.run("get np default-deny -o yaml");
    let (before, after) = ran.out.split_once("  resourceVersion: ").unwrap();
    assert_eq!(
        before,
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: default-deny\n  namespace: default\n"
    );
    assert_eq!(after.lines().count(), 1);

    let ran = folders.run("get tier/security -o json");
    assert!(
        ran.out.starts_with("{\n    \"apiVersion\": \"projectcalico.org/v3\",\n    \"kind\": \"Tier\",\n"),
        "{}",
        ran.out
    );

    let ran = folders.run("get tiers -o yaml");
    assert!(
        ran.out.starts_with("apiVersion: v1\nitems:\n- apiVersion: projectcalico.org/v3\n"),
        "{}",
        ran.out
    );
    assert!(ran.out.ends_with("kind: List\nmetadata:\n  resourceVersion: \"\"\n"), "{}", ran.out);

    let ran = folders.run("get np/allow-web pod/web-0 -n shop -o name");
    ran.prints("networkpolicy.projectcalico.org/allow-web\npod/web-0\n");
    folders
        .run("get sa -o yaml")
        .prints("apiVersion: v1\nitems: []\nkind: List\nmetadata:\n  resourceVersion: \"\"\n");
}

#[test]
fn nothing_found_is_said_and_no_error() {
    let folders = shop();
    folders.run("get pods").says(0, "No resources found in default namespace.\n");
    folders.run("get pods -n empty").says(0, "No resources found in empty namespace.\n");
    folders.run("get sa -A").says(0, "No resources found\n");
    folders.run("get profiles").says(0, "No resources found\n");
}

#[test]
fn a_name_that_does_not_exist_is_an_error_and_the_others_are_shown() {
    let folders = shop();
    folders
        .run("get np x")
        .says(1, "error: networkpolicies.projectcalico.org \"x\" not found in namespace default\n");
    folders.run("get tier x -o yaml").says(1, "error: tiers.projectcalico.org \"x\" not found\n");
    folders.run("get policy x").says(1, "error: policy/x not found\n");
    folders.run("get tier x --ignore-not-found").says(0, "");
    let ran = folders.run("get tier x security");
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.out,
        "NAME       ORDER   DEFAULTACTION   STATUS\nsecurity   100     Deny            <none>\n"
    );
    assert_eq!(ran.err, "error: tiers.projectcalico.org \"x\" not found\n");
}

#[test]
fn a_word_for_several_kinds_finds_the_kind_that_has_the_name() {
    let folders = shop();
    folders.run("get policy allow-db -n shop -o name").prints("networkpolicy.networking.k8s.io/allow-db\n");
    folders
        .run("get pol security.deny-all -o name")
        .prints("globalnetworkpolicy.projectcalico.org/security.deny-all\n");
}

#[test]
fn nodes_are_found_whichever_kind_they_are() {
    let folders = Folders::new();
    folders.put("a.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: a}\n");
    folders.run("get nodes").prints(
        "NAME   STATUS    ROLES    AGE         VERSION\na      Unknown   <none>   <unknown>   <none>\n",
    );
    folders.put("b.yaml", "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: a}\n");
    folders.run("get nodes -o name").prints("node.projectcalico.org/a\nnode/a\n");
    folders
        .run("get node a --no-headers")
        .prints("node.projectcalico.org/a   <unknown>\n\nnode/a   Unknown   <none>   <unknown>   <none>\n");
    folders
        .run("delete node a")
        .says(1, "error: node/a could be node.projectcalico.org/a or node.v1/a: name one of them\n");
    folders.run("delete node.v1/a").prints("node \"a\" deleted\n");
    folders.run("delete node/a").prints("node.projectcalico.org \"a\" deleted\n");
}

#[test]
fn labels_select() {
    let folders = shop();
    folders
        .run("get np,pods -A -l app=web -o name")
        .prints("networkpolicy.projectcalico.org/allow-web\npod/web-0\n");
    folders.run("get np -A -l !app -o name").prints("networkpolicy.projectcalico.org/default-deny\n");
    let ran = run(&mut folders.command(["get", "np", "-l", "app in (web"]));
    ran.says(2, "error: \"app in (web\" in the label selector \"app in (web\" is not understood\n");
}

#[test]
fn the_objects_of_a_manifest_can_be_shown() {
    let folders = shop();
    let file = folders.write("x.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
    let ran = run(folders.command(["get", "-o", "name", "-f"]).arg(&file));
    ran.prints("namespace/shop\n");
}

#[test]
fn documents_that_cannot_be_used_are_warned_about() {
    let folders = shop();
    let file = folders.put(
        "broken.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: broken}\nspec:\n  order: first\n",
    );
    let ran = folders.run("get tiers -o name");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "tier.projectcalico.org/security\n"));
    assert!(
        ran.err.starts_with(&format!("warning: {}:5: Tier/broken: spec.order: ", file.display())),
        "{}",
        ran.err
    );
    folders.run("get ns -o name").prints("namespace/shop\n");
}

#[test]
fn a_contradiction_on_the_command_line_is_exit_code_2() {
    let folders = shop();
    for line in [
        "get",
        "get deployments",
        "get np -o xml",
        "get np x -A",
        "get np x -l app=web",
        "get np -A -n shop",
        "get np/x y",
        "get np -f x",
        "get -f x -A",
    ] {
        let ran = folders.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{line}: {}", ran.err);
        assert!(!ran.err.is_empty(), "{line}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let folders = Folders::new();
    let namespace =
        |n| format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: a-rather-long-name-{n}}}\n");
    let many = (0..3000).map(namespace).collect::<Vec<_>>().concat();
    folders.put("many.yaml", &many);
    let mut child =
        folders.command(["get", "ns"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut byte = [0];
    child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    let ran = Ran::of(&child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let folders = shop();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = folders.command(["get", "ns"]).stdout(full).output().unwrap();
    Ran::of(&output).says(1, "error: cannot write the output: No space left on device\n");
}
