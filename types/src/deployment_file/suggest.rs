//! "Did you mean": the nearest of the words that would have been right.

/// Longest word that is compared: the comparison takes the product of two lengths.
const MAX_CHARS: usize = 40;

/// The choice that `given` most likely stands for, if one is near.
pub(super) fn nearest<'a>(given: &str, choices: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given: Vec<char> = given.chars().take(MAX_CHARS + 1).flat_map(char::to_lowercase).collect();
    if given.is_empty() || given.len() > MAX_CHARS {
        return None;
    }
    choices
        .into_iter()
        .filter(|choice| choice.len() <= MAX_CHARS)
        .map(|choice| (distance(&given, &choice.chars().collect::<Vec<_>>()), choice))
        .filter(|(distance, choice)| *distance <= (choice.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, choice)| choice)
}

/// Edits (insert, remove, replace, swap neighbours) between two words: optimal string alignment.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_word_and_a_stranger_finds_none() {
        let words = ["partitions", "replicas", "tasks", "name", "in", "not-in"];
        for (given, found) in [
            ("partition", Some("partitions")),
            ("partitons", Some("partitions")),
            ("Replicas", Some("replicas")),
            ("taks", Some("tasks")),
            ("nmae", Some("name")),
            ("not_in", Some("not-in")),
            ("volumes", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, words), found, "{given}");
        }
    }
}
