//! Where a new object's file goes: `KIND.GROUP/NAMESPACE/NAME.yaml`, with the plural of the kind as in
//! `networkpolicies.projectcalico.org/shop/allow-web.yaml`. Objects that exist stay in the files they are in.

use std::fmt::Write as _;
use std::path::PathBuf;

use tortie_api::kind::Key;

/// The longest file name on common file systems, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// The path of a new file for an object, relative to the root. `attempt` counts from 0, for when there is a file
/// of that name already that holds something else.
pub(super) fn path_for(key: &Key, attempt: u32) -> PathBuf {
    let group = key.kind.group();
    let folder = if group.is_empty() {
        key.kind.plural().to_owned()
    } else {
        format!("{}.{group}", key.kind.plural())
    };
    let mut path = PathBuf::from(folder);
    if let Some(namespace) = &key.namespace {
        path.push(component(namespace, ""));
    }
    let suffix = if attempt == 0 { ".yaml".to_owned() } else { format!("-{attempt}.yaml") };
    path.push(component(&key.name, &suffix));
    path
}

/// A name as one component of a path: never hidden, never `..`, never with a separator, and never too long.
fn component(name: &str, suffix: &str) -> String {
    let mut text = String::with_capacity(name.len() + suffix.len());
    for (index, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            b'.' if index > 0 => text.push('.'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    // Names that only differ after the cut get different files by the attempts.
    text.truncate(NAME_BYTES_MAX - suffix.len());
    text + suffix
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;
    use tortie_api::kind::Kind;

    use super::*;

    #[test]
    fn two_kinds_of_one_name_have_two_folders() {
        let calico = Key::new(Kind::NetworkPolicy, Some("shop"), "allow-web");
        let kube = Key::new(Kind::KubeNetworkPolicy, Some("shop"), "allow-web");
        let tier = Key::new(Kind::Tier, None, "security.high");
        let pod = Key::new(Kind::Pod, Some("shop"), "web-0");
        assert_eq!(
            path_for(&calico, 0).to_str(),
            Some("networkpolicies.projectcalico.org/shop/allow-web.yaml")
        );
        assert_eq!(
            path_for(&kube, 0).to_str(),
            Some("networkpolicies.networking.k8s.io/shop/allow-web.yaml")
        );
        assert_eq!(path_for(&tier, 2).to_str(), Some("tiers.projectcalico.org/security.high-2.yaml"));
        assert_eq!(path_for(&pod, 0).to_str(), Some("pods/shop/web-0.yaml"));
    }

    #[test]
    fn a_name_of_dots_stays_in_its_folder_and_visible() {
        for name in ["..", ".", "../../etc/passwd", ".hidden", "/etc/x", "#x#", "a/../b"] {
            let path = path_for(&Key { kind: Kind::Tier, namespace: None, name: name.to_owned() }, 0);
            assert_eq!(path.components().count(), 2, "{name}");
            assert!(super::super::files::is_manifest_name(path.file_name().unwrap()), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_key_has_a_path_inside_the_root(name in "\\PC{1,400}", namespace in "\\PC{1,300}") {
            let key = Key { kind: Kind::Pod, namespace: Some(namespace), name };
            let path = path_for(&key, 7);
            prop_assert_eq!(path.components().count(), 3);
            for part in path.components() {
                prop_assert!(matches!(part, Component::Normal(text) if text.len() <= NAME_BYTES_MAX));
            }
        }
    }
}
