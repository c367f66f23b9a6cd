#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

#[test]
fn the_neighbours_of_a_value_carry_over_its_bytes() {
    let value = |bytes: &[u8]| Data::new(bytes);
    assert_eq!(successor(&value(&[10, 0, 0, 255])), Some(value(&[10, 0, 1, 0])));
    assert_eq!(predecessor(&value(&[10, 0, 1, 0])), Some(value(&[10, 0, 0, 255])));
    assert_eq!(successor(&value(&[255; 4])), None);
    assert_eq!(predecessor(&value(&[0; 4])), None);
}
