//! Rules of style that stay true because they are tests: sizes of files and functions, a `//!` on every module, the
//! arrows between crates, what the machines must not know, dashboards that show only what there is, and nothing left undone.
//! Each check is shown to find a planted case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Which crates of the workspace each crate may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("flotilla-proto", &[]),
    ("flotilla-records", &[]),
    ("flotilla-raft", &["flotilla-proto"]),
    ("flotilla-machines", &["flotilla-proto", "flotilla-records"]),
    ("flotilla-broker", &["flotilla-proto", "flotilla-records", "flotilla-raft", "flotilla-machines"]),
    ("flotilla-client", &["flotilla-proto", "flotilla-records"]),
    ("flotilla", &["flotilla-proto", "flotilla-records", "flotilla-broker", "flotilla-client"]),
    ("flotilla-chaos", &["flotilla-proto", "flotilla-records", "flotilla-client", "flotilla-raft", "flotilla-broker"]),
    ("flotilla-tests", &["flotilla-proto", "flotilla-records", "flotilla-client"]),
];

/// Dependencies that stay inside one crate.
const KEPT_INSIDE: &[(&str, &str)] = &[("openraft", "flotilla-raft"), ("rocksdb", "flotilla-raft")];

/// Words that a folder must not contain, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    ("node/machines/src", &["tokio", "SystemTime", "Instant", "rand", "HashMap", "HashSet"], "machines are deterministic"),
    ("node/machines/src", &["async", "std::fs", "std::net", "std::env"], "machines do no I/O"),
    ("node/machines/src", &["flotilla_proto::v1"], "wire types stop at the edge"),
    // What nodes ask each other about the cluster is the broker's own; the public API is not.
    ("node/broker/src", &["flotilla_proto::v1"], "wire types stop at the edge"),
    ("raft/src", &["flotilla_proto::v1", "flotilla_records"], "the Raft host knows nothing about messages"),
];

#[test]
fn files_are_short() {
    assert_none(sources().iter().flat_map(|(path, text)| long_file(path, text)));
    assert_eq!(long_file("planted.rs", &"\n".repeat(FILE_LINES_MAX + 1)).len(), 1);
}

#[test]
fn functions_are_short() {
    assert_none(sources().iter().flat_map(|(path, text)| long_functions(path, text)));
    let long = format!(
        "impl X {{\n    pub fn long(\n        &self,\n    ) {{\n{}    }}\n}}\n",
        "        x();\n".repeat(FUNCTION_LINES_MAX)
    );
    assert_eq!(long_functions("planted.rs", &long).len(), 1);
    let short =
        format!("fn declared();\nfn one() {{}}\nfn two() {{\n    x();\n}}\n{}", "static X: u8 = 0;\n".repeat(FUNCTION_LINES_MAX));
    assert_none(long_functions("planted.rs", &short));
}

#[test]
fn every_module_says_what_lives_there() {
    assert_none(sources().iter().flat_map(|(path, text)| undocumented(path, text)));
    assert_eq!(undocumented("planted.rs", "use std::fmt;\n").len(), 1);
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let manifests = files("Cargo.toml").into_iter().filter(|(path, _)| path != "Cargo.toml").collect::<Vec<_>>();
    assert_eq!(
        manifests.len(),
        ARROWS.len(),
        "a crate is missing in ARROWS: {:?}",
        manifests.iter().map(|m| &m.0).collect::<Vec<_>>()
    );
    assert_none(manifests.iter().flat_map(|(path, text)| wrong_arrows(path, text)));
    let planted = "[package]\nname = \"flotilla-raft\"\n[dependencies]\nflotilla-machines.workspace = true\n";
    assert_eq!(wrong_arrows("planted", planted).len(), 1);
    let planted = "[package]\nname = \"flotilla-broker\"\n[dependencies]\nopenraft.workspace = true\n";
    assert_eq!(wrong_arrows("planted", planted).len(), 1);
}

#[test]
fn folders_do_not_know_what_they_must_not() {
    assert_none(sources().iter().flat_map(|(path, text)| forbidden_words(path, text)));
    assert_eq!(forbidden_words("node/machines/src/planted.rs", "let at = Instant::now();\n").len(), 1);
    assert_none(forbidden_words("node/machines/src/planted.rs", "// Instant is not used\nlet operand = grand(1);\n"));
}

#[test]
fn dashboards_and_alerts_name_declared_metrics() {
    let declared =
        metrics(sources().iter().filter(|(path, _)| path.starts_with("node/server/src/telemetry/")).map(|(_, text)| text));
    assert!(declared.contains("flotilla_topics") && declared.contains("flotilla_produced_records_total"), "{declared:?}");
    let shown: Vec<_> = [".json", ".yml"].into_iter().flat_map(files).filter(|(path, _)| path.starts_with("deploy/")).collect();
    assert!(shown.iter().map(|(_, text)| words_of_metrics(text).len()).sum::<usize>() > 20, "the dashboard was not found");
    assert_none(shown.iter().flat_map(|(path, text)| undeclared(path, text, &declared)));

    let planted = "gauge(\"lag\", help, 1); x.counter(\n  \"cuts\", \"Cuts\", 2.0); declare(r, \"waits\", \"Waits\", latency()); label(\"no\")";
    let declared = metrics([&planted.to_owned()]);
    let named = "flotilla_lag flotilla_cuts_total rate(flotilla_waits_bucket[1m]) flotilla_lag_total flotilla_cuts flotilla_no";
    let wrong = ["flotilla_lag_total", "flotilla_cuts", "flotilla_no"];
    let found = undeclared("planted.json", named, &declared);
    assert!(found.len() == wrong.len() && wrong.iter().all(|name| found.iter().any(|said| said.ends_with(name))), "{found:?}");
}

#[test]
fn nothing_is_left_undone() {
    assert_none(sources().iter().flat_map(|(path, text)| undone(path, text)));
    assert_eq!(undone("planted.rs", concat!("    to", "do!()\n#[ig", "nore]\n")).len(), 2);
}

fn long_file(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= FILE_LINES_MAX { vec![] } else { vec![format!("{path} has {lines} lines, allowed are {FILE_LINES_MAX}")] }
}

/// Goes by the indentation that rustfmt guarantees: a function ends with the first line that closes at its own depth.
fn long_functions(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| opens_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let ends = |line: &&str| {
            let code = line.trim_start();
            line.len() - code.len() == indent && (code.starts_with('}') || code.ends_with(';') || code.ends_with("{}"))
        };
        let one_line = line.ends_with(';') || line.ends_with('}');
        let count = if one_line { 1 } else { 2 + lines[start + 1..].iter().take_while(|line| !ends(line)).count() };
        if count > FUNCTION_LINES_MAX {
            long.push(format!("{path}:{} has a function of {count} lines, allowed are {FUNCTION_LINES_MAX}", start + 1));
        }
    }
    long
}

fn opens_function(line: &str) -> bool {
    let before = line.trim_start().split("fn ").next().unwrap_or_default();
    let word = |word: &str| word.starts_with("pub") || ["async", "const", "unsafe", "extern", "\"C\"", "in"].contains(&word);
    line.trim_start().len() > before.len() && before.split_whitespace().all(word)
}

fn undocumented(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("//! ") { vec![] } else { vec![format!("{path} does not begin with `//!` and what lives there")] }
}

fn wrong_arrows(path: &str, manifest: &str) -> Vec<String> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"');
    let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
        return vec![format!("{path}: crate {name} is not in ARROWS")];
    };
    let wrong = manifest.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|to| {
        let kept_elsewhere = KEPT_INSIDE.iter().any(|(kept, inside)| kept == to && *inside != name);
        kept_elsewhere || to.starts_with("flotilla") && !allowed.contains(to)
    });
    wrong.map(|to| format!("{path}: {name} must not depend on {to}")).collect()
}

fn forbidden_words(path: &str, text: &str) -> Vec<String> {
    let rules = FORBIDDEN.iter().filter(|(folder, ..)| path.starts_with(folder));
    let mut found = Vec::new();
    for (_, words, why) in rules {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let hits = words.iter().filter(|word| has_word(line, word));
            found.extend(hits.map(|word| format!("{path}:{} says {word}, but {why}", number + 1)));
        }
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part_of_name) && !line[at + word.len()..].starts_with(part_of_name))
}

fn undone(path: &str, text: &str) -> Vec<String> {
    let marks = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("#[ig", "nore")];
    let lines = text.lines().enumerate().filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
    lines.map(|(number, line)| format!("{path}:{}: {}", number + 1, line.trim())).collect()
}

/// The names under which the metrics that `sources` declare appear in a scrape.
fn metrics<'a>(sources: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        let pieces: Vec<&str> = code.split('"').collect();
        for pair in pieces.windows(2) {
            // The name is the first text in the call that declares.
            let call = pair[0].trim_end().trim_end_matches(|c: char| c != '(').trim_end_matches('(');
            let kind = call.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            let suffixes: &[&str] = match kind {
                "gauge" => &[""],
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "declare" | "register" | "encode_descriptor" => &["", "_total", "_bucket", "_sum", "_count", "_info"],
                _ => continue,
            };
            names.extend(suffixes.iter().map(|suffix| format!("flotilla_{}{suffix}", pair[1])));
        }
    }
    names
}

fn words_of_metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.starts_with("flotilla_")).collect()
}

fn undeclared(path: &str, text: &str, declared: &BTreeSet<String>) -> Vec<String> {
    let unknown = words_of_metrics(text).into_iter().filter(|&name| !declared.contains(name));
    unknown.map(|name| format!("{path}: the server declares no metric {name}")).collect()
}

fn assert_none(violations: impl IntoIterator<Item = String>) {
    let violations: Vec<String> = violations.into_iter().collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn sources() -> BTreeMap<String, String> {
    let sources = files(".rs");
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Every file of the repository whose name ends with `suffix`: path relative to the root, and text.
fn files(suffix: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}
