use super::*;

#[test]
fn features_follow_felix_thresholds() {
    let new = Features::of(Some(Version(1, 8, 9)), Some(Version(6, 1, 0)));
    assert!(new.snat_fully_random && new.masq_fully_random && new.nflog_size && new.restore_supports_lock);
    let middle = Features::of(Some(Version(1, 6, 0)), Some(Version(4, 7, 0)));
    assert!(middle.snat_fully_random && !middle.masq_fully_random);
    assert!(!middle.nflog_size && !middle.restore_supports_lock);
    let old_kernel = Features::of(Some(Version(1, 8, 9)), Some(Version(3, 13, 0)));
    assert!(!old_kernel.masq_fully_random && old_kernel.restore_supports_lock);
    assert_eq!(Features::of(None, None), Features::default());
}

#[test]
fn overrides_win_and_wrong_ones_are_named() {
    let detected = Features::of(Some(Version(1, 8, 9)), Some(Version(6, 1, 0)));
    let (features, errors) =
        detected.with_overrides(" MASQFullyRandom=false, NFLogSize=,SNATFullyRandom=maybe,Nonsense=true,x ");
    assert!(!features.masq_fully_random && features.nflog_size && features.snat_fully_random);
    assert_eq!(
        errors,
        [
            SettingError::Override("SNATFullyRandom=maybe".to_owned()),
            SettingError::Feature("Nonsense".to_owned()),
            SettingError::Override("x".to_owned()),
        ]
    );
    assert_eq!(detected.with_overrides(""), (detected, Vec::new()));
}

#[test]
fn back_ends_are_named_in_any_case() {
    assert_eq!("Auto".parse(), Ok(BackendChoice::Auto));
    assert_eq!("NFT".parse(), Ok(BackendChoice::Fixed(Backend::Nft)));
    assert_eq!("legacy".parse(), Ok(BackendChoice::Fixed(Backend::Legacy)));
    assert_eq!("ebpf".parse::<BackendChoice>(), Err(SettingError::Backend("ebpf".to_owned())));
}
