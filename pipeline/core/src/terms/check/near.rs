//! The name that was probably meant where an unknown one stands. It only ever helps a person: nothing is decided by it.

/// The nearest of some names, where one is near enough to be a slip of the pen; of equally near ones the first.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = wrong.chars().count();
    let far = 1 + length / 4;
    names
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= far)
        .map(|name| (distance(wrong, name), name))
        .filter(|&(distance, _)| distance <= far)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many characters must be changed, added or left out to make one name the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, here) in one.chars().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, &there) in other.iter().enumerate() {
            let changed = corner + usize::from(here != there);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (one, other, expect) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("bsae", "base", 2)]
        {
            assert_eq!(distance(one, other), expect, "{one} {other}");
        }
    }

    #[test]
    fn only_near_names_are_named() {
        let names = ["increment_ppm", "reserve_ppm", "base", "ceiling"];
        assert_eq!(nearest("increment_pmm", names), Some("increment_ppm"));
        assert_eq!(nearest("incrementppm", names), Some("increment_ppm"));
        assert_eq!(nearest("bases", names), Some("base"));
        assert_eq!(nearest("jackpot", names), None);
        assert_eq!(nearest("", names), None);
    }
}
