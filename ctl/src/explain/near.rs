//! Names that somebody may have meant.

/// The names that are close to a word, the closest first: at most three.
pub(super) fn near<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const SHOWN: usize = 3;
    let limit = 1 + word.len() / 4;
    let mut found: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            // Pods of a Deployment are typed without what was generated.
            let is_beginning = name.strip_prefix(word).is_some_and(|rest| rest.starts_with('-'));
            let distance = if is_beginning { 1 } else { distance(word, name) };
            (distance <= limit).then_some((distance, name))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

/// Levenshtein's distance: letters added, left out or exchanged.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_names_are_found_and_others_not() {
        let names = ["frontend", "backend", "database", "web-7f9c-x2x"];
        assert_eq!(near("fronted", names), ["frontend"]);
        assert_eq!(near("backned", names), ["backend"]);
        assert_eq!(near("databse", names), ["database"]);
        assert_eq!(near("web", names), ["web-7f9c-x2x"]);
        assert_eq!(near("payments", names), [""; 0]);
    }

    #[test]
    fn the_distance_counts_single_changes() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("abc", "abc")), (3, 3, 0));
    }
}
