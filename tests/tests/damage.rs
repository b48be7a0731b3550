//! Damage to the files of a stopped node: a torn tail and a lost index heal silently; everything else is detected, named in
//! the log, and never served, nor dropped without a word. What the damage does not touch serves on.
//!
//! `FLOTILLA_DAMAGES` (2; at full size 20) is the number of random places for each kind of file and damage.
//! `FLOTILLA_SEED`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_client::{Client, ClientOptions, Error, api};
use flotilla_tests::files;
use flotilla_tests::history;
use flotilla_tests::random::Random;
use flotilla_tests::read;
use flotilla_tests::server::Server;
use flotilla_tests::settings;

const ARGS: [&str; 4] = ["--journal-bytes", "128MiB", "--segment-bytes", "1MiB"];
const TOPICS: [&str; 3] = ["first", "second", "third"];
const RECORDS: u64 = 15_000;
const GROUP: &str = "audit";
/// A damaged partition is refused at once; only one that will never answer takes this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What a topic holds: its values, and what a consumer group has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    values: Vec<Vec<u8>>,
    committed: Option<u64>,
}

/// The data directory of a stopped node, and what it holds.
struct Node {
    dir: tempfile::TempDir,
    expected: BTreeMap<&'static str, Content>,
    groups: BTreeMap<&'static str, u64>,
    random: Random,
}

/// How a node was stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    Cleanly,
    Killed,
}

impl Node {
    async fn new(stop: Stop) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::started(&dir.path().join("node"), &ARGS);
        let client = server.client().await;
        for topic in TOPICS {
            read::create_topic(&client, topic, 1).await;
        }
        for (part, topic) in TOPICS.into_iter().chain(TOPICS).enumerate() {
            let sent = history::send(&client, topic, part as u32, 0..RECORDS / 2).await.unwrap();
            assert_eq!(sent.acked(), sent.len());
        }
        let (mut expected, mut groups) = (BTreeMap::new(), BTreeMap::new());
        for (topic, offset) in TOPICS.into_iter().zip(1..) {
            let commit = api::CommitRequest { group: GROUP.into(), topic: topic.into(), offset, ..Default::default() };
            client.commit(commit).await.unwrap();
            let content = read_topic(&client, topic).await.unwrap();
            assert_eq!((content.values.len() as u64, content.committed), (RECORDS, Some(offset)));
            expected.insert(topic, content);
            let described = client.describe_topic(api::DescribeTopicRequest { name: topic.to_owned() }).await.unwrap();
            groups.insert(topic, described.partitions[0].group_id);
        }
        match stop {
            Stop::Cleanly => assert!(server.stop().success()),
            Stop::Killed => server.kill(),
        }
        Self { dir, expected, groups, random: Random::fresh() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    /// Its files that are not empty and that `kind` picks, relative to the data directory.
    fn files(&self, kind: impl Fn(&str) -> bool) -> Vec<String> {
        let files = files::below(&self.path()).into_iter().filter(|file| files::len(file) > 0);
        let relative = files.map(|file| file.strip_prefix(self.path()).unwrap().to_string_lossy().into_owned());
        relative.filter(|name| kind(name)).collect()
    }

    /// Files of the group that holds `topic`, with this ending.
    fn group_files(&self, topic: &str, ending: &str) -> Vec<String> {
        let folder = format!("groups/{}-", self.groups[topic]);
        let files = self.files(|name| name.starts_with(&folder) && name.ends_with(ending));
        assert!(!files.is_empty(), "there is no {folder}*/*{ending}");
        files
    }

    /// Bytes of a file up to the last one that is not zero: journal files are preallocated.
    fn used(&self, name: &str) -> u64 {
        let bytes = fs::read(self.path().join(name)).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    /// Starts a node on a copy with this damage, and looks what it makes of it. What holds for every damage is checked:
    /// what is served is right and whole, and what is not served is said.
    async fn damaged(&self, case: &str, damage: impl FnOnce(&Path)) -> Found {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        files::copy(&self.path(), &path);
        damage(&path);
        self.look(case, &path).await
    }

    /// Starts a node on `path`, reads everything, checks what holds in any case, and kills the node.
    async fn look(&self, case: &str, path: &Path) -> Found {
        let mut server = Server::new(path, &ARGS);
        let mut found = Found { case: case.to_owned(), started: true, log: String::new(), topics: BTreeMap::new() };
        if let Err(refused) = server.try_start() {
            found.started = false;
            found.log = refused.log;
            println!("{case}: refused to start");
            return found;
        }
        let options = ClientOptions { request_timeout: REQUEST_TIMEOUT, ..ClientOptions::default() };
        let client = Client::connect([server.address()], options).await.unwrap();
        // Twice: what is refused stays refused.
        for _ in 0..2 {
            for topic in TOPICS {
                let read = read_topic(&client, topic).await;
                match &read {
                    Ok(content) => {
                        assert!(*content == self.expected[topic], "{case}: {topic} is served and is not what was written")
                    }
                    Err(error) => assert_eq!(error.reason(), "DAMAGED", "{case}: {topic}: {error}"),
                }
                found.topics.insert(topic, read);
            }
        }
        server.kill();
        found.log = server.log();
        println!("{case}: {}", found.summary());
        found
    }

    /// Flips bits at random places below `end`, cuts the file at one, and removes it.
    async fn each_damage(&mut self, name: &str, end: u64) -> Vec<Found> {
        let mut found = Vec::new();
        for _ in 0..settings::number("FLOTILLA_DAMAGES", 2) {
            let at = self.random.below(end as usize) as u64;
            let case = format!("{name} with a bit flipped at {at}");
            found.push(self.damaged(&case, |path| files::flip(&path.join(name), at)).await);
        }
        let len = self.random.below(end as usize) as u64;
        let case = format!("{name} cut to {len}");
        found.push(self.damaged(&case, |path| files::truncate(&path.join(name), len)).await);
        found.push(self.damaged(&format!("{name} removed"), |path| fs::remove_file(path.join(name)).unwrap()).await);
        found
    }
}

/// What became of a damaged node.
#[derive(Debug)]
struct Found {
    case: String,
    started: bool,
    log: String,
    topics: BTreeMap<&'static str, Result<Content, Error>>,
}

impl Found {
    fn healed(&self) -> bool {
        self.started && self.topics.values().all(Result::is_ok)
    }

    /// A bit in a segment was flipped that nobody reads: the payload of a command or a clock is dead once it is applied,
    /// its effect is in rows. (What is served was compared already, so a flip in anything else does not come here.)
    fn harmed_nobody(&self) -> bool {
        self.case.contains(".segment with a bit flipped") && self.healed()
    }

    fn summary(&self) -> String {
        let topics = self.topics.iter().map(|(topic, read)| match read {
            Ok(_) => format!("{topic} ok"),
            Err(error) => format!("{topic}: {error}"),
        });
        topics.collect::<Vec<_>>().join(", ")
    }

    fn assert_healed(&self) {
        assert!(self.healed(), "{} does not heal: {}\n{}", self.case, self.summary(), self.log);
    }

    /// The node does not start, and says which file is at fault.
    fn assert_refused(&self, file: &str) {
        assert!(!self.started, "{}: the node starts", self.case);
        assert!(self.log.contains(file), "{}: {file} is not named:\n{}", self.case, self.log);
    }

    /// Only `topic` is refused, and error and log say which file, which group and which bytes.
    fn assert_only(&self, topic: &str, group: u64, file: &str) {
        assert!(self.started, "{}: the node does not start:\n{}", self.case, self.log);
        for (other, read) in &self.topics {
            assert_eq!(read.is_err(), *other == topic, "{}: {}", self.case, self.summary());
        }
        let error = self.topics[topic].as_ref().unwrap_err().to_string();
        let folder = file.rsplit_once('/').unwrap().0;
        for (what, said) in [("error", &error), ("log", &self.log)] {
            for word in [folder, "bytes ", &format!("group {group}")] {
                assert!(said.contains(word), "{}: {word:?} is not in the {what}: {said}", self.case);
            }
        }
    }
}

/// All of partition 0, read call by call so that every failure is seen at once.
async fn read_topic(client: &Client, topic: &str) -> Result<Content, Error> {
    let mut values = Vec::new();
    let mut offset = 0;
    loop {
        let position = Some(api::Position { at: Some(api::position::At::Offset(offset)) });
        let request = api::FetchRequest { topic: topic.to_owned(), position, ..api::FetchRequest::default() };
        let fetched = client.fetch(request).await?;
        values.extend(fetched.records.into_iter().map(|record| record.value.unwrap_or_default().to_vec()));
        if fetched.next_offset >= fetched.high_watermark {
            break;
        }
        assert!(fetched.next_offset > offset, "reading does not go on at {offset} of {}", fetched.high_watermark);
        offset = fetched.next_offset;
    }
    let request = api::CommittedRequest { group: GROUP.into(), topic: topic.to_owned(), partitions: Vec::new(), topic_id: None };
    let committed = client.committed(request).await?.offsets[0].offset;
    Ok(Content { values, committed })
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_and_controller() {
    let mut node = Node::new(Stop::Cleanly).await;
    for found in node.each_damage("META", node.used("META")).await {
        found.assert_refused("META");
    }
    for name in node.files(|name| name.starts_with("groups/0-") && !name.ends_with(".index")) {
        for found in node.each_damage(&name, node.used(&name)).await {
            if !found.harmed_nobody() {
                found.assert_refused("groups/0-");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments() {
    let mut node = Node::new(Stop::Cleanly).await;
    for (topic, ending) in [("first", ".segment"), ("second", ".segment"), ("third", "log-start")] {
        for name in node.group_files(topic, ending) {
            for found in node.each_damage(&name, node.used(&name)).await {
                if !found.harmed_nobody() {
                    found.assert_only(topic, node.groups[topic], &name);
                }
            }
        }
    }
    for name in node.group_files("second", ".index") {
        for found in node.each_damage(&name, node.used(&name)).await {
            found.assert_healed();
        }
    }
}

/// Damaged data is kept as it is, however often the node starts: with the file put right, everything is served again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_right_is_served_again() {
    let mut node = Node::new(Stop::Cleanly).await;
    for ending in [".segment", "log-start"] {
        let name = node.group_files("first", ending).remove(0);
        let at = node.random.below(node.used(&name) as usize) as u64;
        for case in ["flipped", "cut", "removed"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("node");
            files::copy(&node.path(), &path);
            match case {
                "flipped" => files::flip(&path.join(&name), at),
                "cut" => files::truncate(&path.join(&name), at),
                _ => fs::remove_file(path.join(&name)).unwrap(),
            }
            for _ in 0..2 {
                node.look(&format!("{name} {case}"), &path).await.assert_only("first", node.groups["first"], &name);
            }
            fs::copy(node.path().join(&name), path.join(&name)).unwrap();
            node.look(&format!("{name} {case} and put right"), &path).await.assert_healed();
        }
    }
}

/// A group that stays down must not hold up the others, not even when they write more than the journal holds.
#[tokio::test(flavor = "multi_thread")]
async fn the_others_go_on() {
    const VALUES: usize = 1_500;
    for stop in [Stop::Cleanly, Stop::Killed] {
        let node = Node::new(stop).await;
        // Its first record in the journal, which names no other group there.
        let journal = node.path().join(&node.files(|name| name.starts_with("journal/"))[0]);
        let value = &node.expected["first"].values[0];
        let at = fs::read(&journal).unwrap().windows(value.len()).position(|bytes| bytes == value).unwrap();
        files::flip(&journal, at as u64);
        let mut server = Server::started(&node.path(), &ARGS);
        let client = server.client().await;
        let producer = client.producer("second", flotilla_client::ProducerOptions::default()).await.unwrap();
        let large = vec![b'x'; 100_000];
        for _ in 0..VALUES {
            producer.enqueue(flotilla_client::Record::new(&large)).await.unwrap();
        }
        producer.close().await.unwrap();
        assert_eq!(read_topic(&client, "first").await.unwrap_err().reason(), "DAMAGED");
        server.kill();
        server.start();
        let client = server.client().await;
        let (_, end) = read::bounds(&client, "second").await[&0];
        assert_eq!(end, RECORDS + VALUES as u64);
        assert_eq!(read_topic(&client, "third").await.unwrap(), node.expected["third"]);
        assert_eq!(read_topic(&client, "first").await.unwrap_err().reason(), "DAMAGED");
        // Who needs a leader is told, too, and does not wait for one.
        let position = Some(api::Position { at: Some(api::position::At::Earliest(api::Earliest {})) });
        let offsets = api::ListOffsetsRequest { topic: "first".to_owned(), partitions: Vec::new(), position, topic_id: None };
        assert_eq!(client.list_offsets(offsets).await.unwrap_err().reason(), "DAMAGED");
        let producer = client.producer("first", flotilla_client::ProducerOptions::default()).await.unwrap();
        let outcome = producer.send(flotilla_client::Record::new(b"lost")).await.unwrap().await;
        assert_eq!(outcome.unwrap_err().reason(), "DAMAGED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn journal() {
    for stop in [Stop::Cleanly, Stop::Killed] {
        let mut node = Node::new(stop).await;
        for name in node.files(|name| name.starts_with("journal/")) {
            let used = node.used(&name);
            if used < 4096 {
                continue;
            }
            for found in node.each_damage(&name, used).await {
                // Padding may change, and nobody loses anything by it.
                assert!(found.healed() || found.log.contains("journal"), "{}:\n{}", found.case, found.log);
            }
            // A write that the kill tore: the start of a batch behind the last one.
            let found = node.damaged(&format!("{name} with a torn tail"), |path| tear(&path.join(&name), used)).await;
            found.assert_healed();
        }
    }
}

/// Repeats the first bytes of the file's last block with content behind its end, as the start of a write that was not finished.
fn tear(path: &Path, used: u64) {
    use std::os::unix::fs::FileExt;
    const BLOCK_BYTES: u64 = 4096;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut block = [0; BLOCK_BYTES as usize];
    file.read_exact_at(&mut block, (used - 1) / BLOCK_BYTES * BLOCK_BYTES).unwrap();
    file.write_all_at(&block[..BLOCK_BYTES as usize / 2], used.next_multiple_of(BLOCK_BYTES)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn state() {
    // Files that RocksDB writes for people, or can do without.
    let unimportant = |name: &str| ["LOG", "LOCK", "OPTIONS", "IDENTITY"].iter().any(|part| name.contains(part));
    for stop in [Stop::Cleanly, Stop::Killed] {
        let mut node = Node::new(stop).await;
        for name in node.files(|name| name.starts_with("state/")) {
            for found in node.each_damage(&name, node.used(&name).max(1)).await {
                if unimportant(&name) {
                    found.assert_healed();
                }
                assert!(found.healed() || found.log.contains("state"), "{}:\n{}", found.case, found.log);
            }
        }
    }
}

/// Somebody gives up what is damaged: what is left is served from where it was, the topic is written again, and no offset is
/// given out twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_serves_once_the_loss_is_accepted() {
    let mut node = Node::new(Stop::Cleanly).await;
    let name = node.group_files("first", ".segment").remove(0);
    let used = node.used(&name);
    for _ in 0..settings::number("FLOTILLA_DAMAGES", 2) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        files::copy(&node.path(), &path);
        let at = node.random.below(used as usize) as u64;
        files::flip(&path.join(&name), at);
        // So that a start reads every header.
        files::below(&path)
            .iter()
            .filter(|file| file.extension().is_some_and(|it| it == "index"))
            .for_each(|file| fs::remove_file(file).unwrap());
        let mut server = Server::started(&path, &ARGS);
        let client = server.client().await;
        let recover = |topic: &str, accept_loss| {
            client.recover_partition(api::RecoverPartitionRequest { topic: topic.to_owned(), partition: 0, accept_loss })
        };
        if read_topic(&client, "first").await.is_ok() {
            println!("a bit of {name} that nobody reads was flipped, at {at}");
            continue;
        }
        assert_eq!(recover("first", false).await.unwrap_err().reason(), "INVALID_REQUEST");
        assert_eq!(recover("second", true).await.unwrap_err().reason(), "NOT_RECOVERABLE");
        let recovered = recover("first", true).await.unwrap();
        println!("a bit of {name} flipped at {at}: {recovered:?}");
        // None at all, if it was the header of an entry without records.
        assert!(recovered.lost_offsets < RECORDS / 2, "{recovered:?}");
        let lost = |offset: u64| recovered.lost.iter().any(|lost| (lost.from..lost.to).contains(&offset));
        let values = (0..).zip(&node.expected["first"].values);
        let mut expected: Vec<_> =
            values.filter(|(offset, _)| !lost(*offset)).map(|(offset, value)| (offset, value.clone())).collect();
        for _ in 0..2 {
            let client = server.client().await;
            let producer = client.producer("first", flotilla_client::ProducerOptions::default()).await.unwrap();
            let sent = producer.send(flotilla_client::Record::new(b"more")).await.unwrap().await.unwrap();
            assert!(sent.offset >= recovered.next_offset, "{sent:?}");
            expected.push((sent.offset, b"more".to_vec()));
            producer.close().await.unwrap();
            let read = read::all(&client, "first").await.remove(&0).unwrap();
            let read: Vec<_> = read.into_iter().map(|read| (read.offset, read.value.unwrap())).collect();
            assert!(read == expected, "what is left is not served as it was");
            assert_eq!(read_topic(&client, "second").await.unwrap(), node.expected["second"]);
            server.kill();
            server.start();
        }
    }
}
