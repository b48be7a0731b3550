//! Log lines to produce: real-looking generated ones, or those of real files.

use std::fs;

use crate::random::Random;
use crate::settings;

const GENERATED_LINES: usize = 4_000;
const PROGRAMS: [&str; 5] = ["httpd", "sshd", "nova-compute", "dn.DataNode", "QuorumPeer"];
/// Separated by `|`.
const WORDS: &str = "connection|from|closed|received|block|blk_3587508140051953248|naïve|größe|日本語|état|192.168.17.4|\
    session=0x14ed93111f20057|timeout|GET /v2/54fadb41/servers/detail HTTP/1.1|status: 200|\"quoted\"|tab\tseparated|🚢|\
    authentication failure;|uid=0|rhost=ñandú.example|ERROR|\r|\0";

/// A named list of lines, without their line ends.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Where they come from.
    pub name: String,
    /// The lines, as bytes: real files need not be UTF-8.
    pub lines: Vec<Vec<u8>>,
}

/// Every `*.log` file of the folder that `FLOTILLA_LOG_FILES` names; without it one generated list.
///
/// # Panics
/// If the folder cannot be read, or holds no such file.
#[must_use]
pub fn sources() -> Vec<Lines> {
    let Some(folder) = settings::log_files() else {
        return vec![Lines { name: "generated".to_owned(), lines: generated(GENERATED_LINES) }];
    };
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no *.log file", folder.display());
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Lines { name, lines: split(&fs::read(path).unwrap()) }
    };
    paths.iter().map(read).collect()
}

/// All lines of all [`sources`].
#[must_use]
pub fn all() -> Vec<Vec<u8>> {
    sources().into_iter().flat_map(|source| source.lines).collect()
}

/// The first `count` of a fixed list of lines: 50 to 400 bytes, some empty, many not ASCII.
#[must_use]
pub fn generated(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(0x0f10_7111a);
    (0..count).map(|number| line(number, &mut random)).collect()
}

fn line(number: usize, random: &mut Random) -> Vec<u8> {
    if random.below(50) == 0 {
        return Vec::new();
    }
    let words: Vec<_> = WORDS.split('|').collect();
    let (program, pid) = (random.pick(&PROGRAMS), random.below(300));
    let mut text = format!("{program}[{pid}] Nov 21 08:{:02}:{:02} {number}", number / 60 % 60, number % 60);
    let bytes = 50 + random.below(330);
    while text.len() < bytes {
        text.push(' ');
        text.push_str(random.pick::<&str>(&words));
    }
    text.into_bytes()
}

/// Cuts at line feeds; what follows the last one is a line if it is not empty.
#[must_use]
pub fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
}

/// What stands before the first space: the key, where lines are produced with keys.
#[must_use]
pub fn key(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    Some(&line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_lines_are_what_they_say() {
        let lines = generated(GENERATED_LINES);
        assert_eq!(lines, generated(GENERATED_LINES));
        assert!(lines.iter().any(Vec::is_empty) && lines.iter().any(|line| !line.is_ascii()));
        assert!(lines.iter().all(|line| line.is_empty() || (50..=430).contains(&line.len())));
        assert!(lines.iter().all(|line| !line.contains(&b'\n')));
    }

    #[test]
    fn every_line_is_cut_out_once() {
        assert_eq!(split(b"a\n\nb\n"), [b"a".to_vec(), b"".to_vec(), b"b".to_vec()]);
        assert_eq!(split(b"a\nb"), [b"a".to_vec(), b"b".to_vec()]);
        assert!(split(b"").is_empty());
    }
}
