//! What somebody may have meant by a name that no setting has.

use super::SETTINGS;

/// What all variables of ours begin with.
const PREFIX: &str = "FLOTILLA_";
/// What is set by a variable and is no setting: a client's address, a server's file.
const OTHERS: [&str; 2] = ["addr", "config"];

/// Variables of the environment that set nothing, but look as if they were meant to: each with the one that may be meant.
/// What is further from any setting may be somebody else's, and is left alone.
pub fn misspelt(variables: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let suspect = |variable: String| {
        let name = variable.strip_prefix(PREFIX)?.to_lowercase();
        let meant = nearest_of(&name, settings().chain(OTHERS)).map(|meant| format!("{PREFIX}{}", meant.to_uppercase()))?;
        (meant != variable).then_some((variable, meant))
    };
    variables.filter_map(suspect).collect()
}

/// The declared name with the fewest edits from `name`, if those are so few that it may be meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    nearest_of(name, settings())
}

fn settings() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.name)
}

fn nearest_of(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let edits_max = (name.chars().count() / 3).max(1);
    let near = known.map(|known| (distance(known, name), known)).min();
    near.filter(|(edits, _)| *edits <= edits_max).map(|(_, known)| known)
}

/// Edits (insert, delete, replace) between two words: Levenshtein's distance, one row at a time.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (b, cell) in to.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != b);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_setting_is_suspect() {
        let known = ["FLOTILLA_DATA_DIR", "FLOTILLA_ADDR", "FLOTILLA_CONFIG", "FLOTILLA_SERVICE_HOST", "DATA_DIRS", "FLOTILLA_"];
        let variables = ["FLOTILLA_DATADIR", "FLOTILLA_Listen", "FLOTILLA_ADRR"].into_iter().chain(known);
        let meant = |variable: &str, meant: &str| (variable.to_owned(), meant.to_owned());
        let suspects = [
            meant("FLOTILLA_DATADIR", "FLOTILLA_DATA_DIR"),
            meant("FLOTILLA_Listen", "FLOTILLA_LISTEN"),
            meant("FLOTILLA_ADRR", "FLOTILLA_ADDR"),
        ];
        assert_eq!(misspelt(variables.map(str::to_owned)), suspects);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("listen", "listne"), 2);
        assert_eq!(distance("", "http"), 4);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
