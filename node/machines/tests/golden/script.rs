//! Reading, running and rewriting scripts.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fs};

use crate::common::{Change, Store};

/// Runs the commands of one script.
pub trait Session {
    fn run(&mut self, command: &Command) -> String;
}

/// A command line: a verb, then `name=value` each.
pub struct Command {
    pub verb: String,
    arguments: BTreeMap<String, String>,
}

impl Command {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("an empty command").to_owned();
        let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let arguments = words.map(|word| pair(word).unwrap_or_else(|| panic!("{word} is not name=value in: {line}")));
        Self { verb, arguments: arguments.collect() }
    }

    pub fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or_else(|| panic!("{} needs {name}=", self.verb)).to_owned()
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.arguments.get(name).map(String::as_str)
    }

    pub fn number<N: FromStr<Err: Debug>>(&self, name: &str) -> N {
        self.text(name).parse().expect("a number")
    }

    pub fn find_number<N: FromStr<Err: Debug>>(&self, name: &str) -> Option<N> {
        self.find(name).map(|value| value.parse().expect("a number"))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let hex = self.text(name);
        let pairs = hex.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).expect("hex")).collect()
    }
}

/// Runs every script whose file name begins with `prefix`, each in a session of its own.
pub fn run_all<S: Session>(prefix: &str, new_session: impl Fn() -> S) {
    let scripts = scripts(prefix);
    assert!(!scripts.is_empty(), "no script {prefix}*.txt");
    for path in scripts {
        let before = fs::read_to_string(&path).unwrap();
        let after = run(&before, &mut new_session());
        if env::var_os("FLOTILLA_REWRITE").is_some() {
            fs::write(&path, after).unwrap();
        } else if before != after {
            let line = before.lines().zip(after.lines()).take_while(|(before, after)| before == after).count();
            let expected = before.lines().nth(line).unwrap_or("(end)");
            let got = after.lines().nth(line).unwrap_or("(end)");
            panic!("{}:{}\nexpected {expected}\ngot      {got}", path.display(), line + 1);
        }
    }
}

fn scripts(prefix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(prefix) && name.ends_with(".txt")
    };
    let mut scripts: Vec<PathBuf> = paths.filter(wanted).collect();
    scripts.sort();
    scripts
}

fn run(script: &str, session: &mut impl Session) -> String {
    let mut out = String::new();
    let mut in_answer = false;
    for line in script.lines() {
        match line {
            "" => {
                in_answer = false;
                out.push('\n');
            }
            _ if in_answer => {}
            "----" => in_answer = true,
            comment if comment.starts_with('#') => writeln!(out, "{comment}").unwrap(),
            command => {
                let answer = session.run(&Command::parse(command));
                writeln!(out, "{command}\n----\n{}", answer.trim_end()).unwrap();
            }
        }
    }
    out
}

/// An outcome: what was done, or why not, for programs and for people.
pub fn show_outcome<A: Debug, R: Debug + Display>(outcome: &Result<A, R>) -> String {
    match outcome {
        Ok(answer) => format!("{answer:?}\n"),
        Err(refusal) => format!("refused: {refusal:?}\n  {refusal}\n"),
    }
}

/// The changes of rows, their values as `show_value` shows them.
pub fn show_changes(changes: Vec<Change>, show_value: impl Fn(u8, &[u8]) -> String) -> String {
    let mut out = String::new();
    for (table, key, value) in changes {
        match value {
            Some(value) => writeln!(out, "put {table} {} {}", key.escape_ascii(), show_value(table, &value)),
            None => writeln!(out, "delete {table} {}", key.escape_ascii()),
        }
        .unwrap();
    }
    out
}

/// All rows, byte by byte: what is on disks.
pub fn show_rows(store: &Store) -> String {
    let mut out = String::new();
    for (table, key, value) in store.rows() {
        write!(out, "{table} {} ", key.escape_ascii()).unwrap();
        value.iter().for_each(|byte| write!(out, "{byte:02x}").unwrap());
        out.push('\n');
    }
    out
}
