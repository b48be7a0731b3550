//! The command line as a user types it: every line of the README, output formats, exit codes, and what goes wrong at a prompt.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use flotilla_tests::cli::{Cli, Output};
use flotilla_tests::lines;
use flotilla_tests::ports;
use flotilla_tests::server::Server;
use rustix::process::Signal;
use serde_json::Value;

/// Longer than any time limit of the client; a command that is not back by then hangs.
const BOUNDED: Duration = Duration::from_secs(45);

fn started() -> (tempfile::TempDir, Server, Cli) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::started(&dir.path().join("data"), &[]);
    let cli = Cli::new(server.address());
    (dir, server, cli)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
}

/// The bytes of lines in any order.
fn sorted(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = lines::split(bytes);
    lines.sort();
    lines
}

#[test]
fn the_lines_of_the_tour() {
    let (dir, server, cli) = started();
    cli.run("topic create access --partitions 6").ok();
    let described = json(&cli.run("topic describe access -o json").ok());
    assert_eq!(described["partitions"].as_array().unwrap().len(), 6);
    assert_eq!(described["name"], "access");

    let lines = lines::generated(1_000);
    let input = joined(&lines);
    let produced = cli.input("produce access", &input);
    assert!(produced.stderr.contains("1000 records acknowledged"), "{}", produced.stderr);
    assert_eq!(produced.code, Some(0));
    let metrics = server.get("/metrics").unwrap();
    assert!(metrics.contains("flotilla_produced_records_total 1000\n"), "{metrics}");
    let consumed = cli.run("consume access --from earliest --until-end");
    assert_eq!((consumed.code, sorted(&consumed.stdout)), (Some(0), sorted(&input)));

    let file = dir.path().join("keyed.log");
    std::fs::write(&file, "ssh-1 first\nssh-2 second\nnokey\nssh-1 third").unwrap();
    cli.run("topic create keyed --partitions 6").ok();
    let path = file.to_string_lossy();
    cli.args(&["produce", "keyed", "--key-separator", " ", "--compression", "zstd", "--file", &path], b"").ok();
    let format = ["consume", "keyed", "--from", "earliest", "--until-end", "--format", r"%p %o %k %v\n"];
    let text = cli.args(&format, b"").ok();
    let records: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    let of_key = |key: &str| records.iter().filter(|record| record[2] == key).map(|record| record[3]).collect::<Vec<_>>();
    assert_eq!((of_key("ssh-1"), of_key("ssh-2"), of_key("")), (vec!["first", "third"], vec!["second"], vec!["nokey"]));

    let text = cli.run("consume keyed --from earliest --until-end -o json").ok();
    let records: Vec<Value> = text.lines().map(json).collect();
    assert_eq!(records.len(), 4);
    for record in &records {
        for field in ["topic", "partition", "offset", "timestamp", "key", "value", "headers"] {
            assert!(record.get(field).is_some(), "{field} is missing in {record}");
        }
    }
    let keyless = records.iter().find(|record| record["value"] == "nokey").unwrap();
    assert!(keyless["key"].is_null() && keyless["topic"] == "keyed");

    cli.run("group commit audit access --partition 0 --offset 100").ok();
    let committed = json(&cli.run("group committed audit access -o json").ok());
    assert_eq!((&committed[0]["partition"], &committed[0]["offset"]), (&0.into(), &100.into()));
    assert!(committed[1]["offset"].is_null());
}

#[test]
fn the_benchmarks() {
    let (_dir, _server, cli) = started();
    let throughput = ["records_per_second", "mb_per_second", "seconds", "records"];
    let latency = ["p50_ms", "p99_ms", "p999_ms", "max_ms"];
    let produce = "bench produce --records 20000 --size 100 --batch-bytes 262144 --producers 4 --partitions 6 -o json";
    let consume = "bench consume --records 20000 --size 100 --partitions 6 -o json";
    let latencies = "bench latency --rate 1000 --size 1024 --seconds 1 -o json";
    for (line, fields) in
        [(produce, &[throughput, latency].concat()), (consume, &throughput.to_vec()), (latencies, &latency.to_vec())]
    {
        let report = json(&cli.run(line).ok());
        for field in fields {
            assert!(report[*field].as_f64().is_some_and(|number| number > 0.0), "{line}: {field} in {report}");
        }
        assert!(report.to_string().contains("cpu_seconds"), "{line}: {report}");
    }
}

#[test]
fn topics_from_creation_to_deletion() {
    let (_dir, _server, cli) = started();
    cli.run("topic create t --partitions 2 --retention 1h --retention-bytes 1GiB").ok();
    assert!(cli.run("topic create t --partitions 2").fails(4).contains("TOPIC_EXISTS"));
    assert!(cli.run("topic create t --if-not-exists").fails(4).contains("it has 2, asked for: 1"));
    cli.run("topic create t --partitions 2 --if-not-exists").ok();
    cli.run("topic alter t --batch-bytes-max 1MiB --timestamp-ahead-max 2h").ok();
    let described = json(&cli.run("topic describe t -o json").ok());
    assert_eq!((&described["batch_bytes_max"], &described["retention_ms"]), (&(1 << 20).into(), &3_600_000.into()));
    assert_eq!(described["timestamp_ahead_max_ms"], 7_200_000);
    // A node on its own goes by its clock.
    let ahead_ms = described["partitions"][0]["time_ahead_ms"].as_i64().unwrap();
    assert!(ahead_ms.abs() < 60_000, "{described}");
    cli.run("topic alter t --reset timestamp-ahead-max").ok();
    assert_eq!(json(&cli.run("topic describe t -o json").ok())["timestamp_ahead_max_ms"], 3_600_000);
    for (output, word) in [("text", "t"), ("wide", "t"), ("json", "\"t\""), ("yaml", "name: t")] {
        assert!(cli.run(&format!("topic list -o {output}")).ok().contains(word), "{output}");
    }
    cli.input("produce t --partition 1 --header a=b", b"1\n2\n3\n").ok();
    let headers = cli.args(&["consume", "t", "--until-end", "--format", r"%t %h %v\n"], b"").ok();
    assert!(headers.lines().count() == 3 && headers.contains('a') && headers.starts_with("t "), "{headers}");
    cli.run("topic delete-records t --partition 1 --before-offset 2").ok();
    assert_eq!(cli.run("consume t --until-end").ok(), "3\n");
    assert_eq!(cli.run("consume t --from earliest --count 1").ok(), "3\n");
    cli.run("topic delete t").ok();
    assert!(cli.run("topic describe t").fails(3).contains("UNKNOWN_TOPIC"));
    cli.run("produce t").fails(3);
    cli.run("consume t --until-end").fails(3);
    assert_eq!(json(&cli.run("topic list -o json").ok()), Value::Array(vec![]));
}

#[test]
fn lines_that_make_no_sense() {
    let (_dir, _server, cli) = started();
    cli.run("topic create t").ok();
    for line in [
        "",
        "tpoic list",
        "topic create",
        "topic create a/b",
        "topic create t2 --partitions many",
        "topic list -o xml",
        "produce t --compression rar",
        "produce t --header nothing",
        "produce t --batch-bytes 5parsecs",
        "consume t --from yesterday",
        "consume t --format %q",
        "consume t --until-end --follow",
        "consume t -o yaml",
        "group commit g t --partition 0",
        "cluster",
        "node drain",
        "node drain two",
        "node drain 2 --no-wait --timeout 5s",
        "partition move t 0",
        "partition move t 0 --replicas 1,two",
        "partition move t 0 --replicas 1 --timeout 5s",
        "server --no-such-flag",
        "server --journal-bytes 1",
        "server --log-level loud",
        "server --listen 127.0.0.1:7 --http 127.0.0.1:7",
        "config print --retention-interval 0",
        "config print --records-per-batch-max 0",
        "topic create t2 --partitions -1",
        "topic alter t --retention 1h --reset retention",
        "topic list --addr localhost",
        "topic list --addr http://127.0.0.1:7070",
    ] {
        cli.run(line).fails(2);
    }
    for args in [["topic", "list", "--addr", ""], ["produce", "t", "--key-separator", ""]] {
        cli.args(&args, b"").fails(2);
    }
    for line in [
        "produce t --partition 7",
        "consume t --partition 7 --until-end",
        "group commit g t --partition 7 --offset 0",
        "topic delete-records t --partition 7 --before-offset 0",
    ] {
        let said = cli.run(line).fails(3);
        assert_eq!(said, "error: topic \"t\" has no partition 7: its last one is 0 [UNKNOWN_PARTITION]\n", "{line}");
    }
    let missing = cli.run("produce t --file /no/such/file").fails(1);
    assert!(missing.contains("/no/such/file"), "{missing}");
    assert!(cli.run("group commit g t --partition 0 --offset 5").fails(1).contains("OFFSET_OUT_OF_RANGE"));
    for line in ["--help", "--version", "topic --help", "completions bash", "config print"] {
        assert!(!cli.run(line).ok().is_empty());
    }
}

/// Flags, variables and file say the same; `config print --origin` says which of them did.
#[test]
fn one_configuration_three_ways() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flotilla.toml");
    std::fs::write(&file, "segment_bytes = \"2MiB\"\nwait_max = \"7s\"\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let mut command = std::process::Command::new(flotilla_tests::server::binary());
    command.env_clear().env("FLOTILLA_WAIT_MAX", "8s").env("FLOTILLA_LISTEN", "127.0.0.1:2").env("FLOTILLA_CONFIG", &file);
    command.args(["config", "print", "--origin", "-o", "json", "--listen", "127.0.0.1:3"]);
    let printed = json(&String::from_utf8(command.output().unwrap().stdout).unwrap());
    let setting = |name: &str| (printed[name]["value"].as_str().unwrap(), printed[name]["origin"].as_str().unwrap());
    assert_eq!(setting("segment_bytes").0, "2MiB");
    assert!(setting("segment_bytes").1.contains("flotilla.toml"), "{printed}");
    assert!(setting("wait_max").0 == "8s" && setting("wait_max").1.contains("FLOTILLA_WAIT_MAX"), "{printed}");
    assert!(setting("listen").0 == "127.0.0.1:3" && setting("listen").1.contains("--listen"), "{printed}");
    assert_eq!(setting("node_id"), ("1", "default"));
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    let (_dir, _server, cli) = started();
    cli.run("topic create t").ok();
    cli.input("produce t", &"a line of some length, many times over\n".repeat(50_000).into_bytes()).ok();
    let mut running = cli.spawn(&["consume", "t", "--from", "earliest", "--until-end"]);
    let mut some = [0; 1000];
    running.child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let Output { code, stderr, .. } = running.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn ctrl_c_while_producing() {
    let (_dir, _server, cli) = started();
    cli.run("topic create t").ok();
    let mut running = cli.spawn(&["produce", "t", "-o", "json"]);
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(&"a line\n".repeat(20_000).into_bytes()).unwrap();
    // Its input stays open: it ends because of the signal. It must have read something by then.
    let watch = cli.spawn(&["consume", "t", "--from", "earliest", "--count", "1"]);
    assert_eq!(watch.finish().ok(), "a line\n");
    running.signal(Signal::INT);
    let Output { code, stdout, stderr } = running.finish();
    drop(stdin);
    assert_eq!(code, Some(130), "{stderr}");
    let report = json(&String::from_utf8(stdout).unwrap());
    let stored = cli.run("consume t --until-end").ok().lines().count() as u64;
    assert_eq!(report["acked_records"].as_u64(), Some(stored), "{stderr}");
    assert_eq!((&report["failed_records"], &report["unknown_records"]), (&0.into(), &0.into()));
}

#[test]
fn ctrl_c_while_consuming() {
    let (_dir, _server, cli) = started();
    cli.run("topic create t").ok();
    cli.input("produce t", b"first\nsecond\n").ok();
    let mut running = cli.spawn(&["consume", "t", "--from", "earliest"]);
    let mut stdout = BufReader::new(running.child.stdout.take().unwrap());
    let mut line = String::new();
    for expected in ["first\n", "second\n"] {
        line.clear();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, expected, "a follower prints what is there before it waits");
    }
    running.signal(Signal::INT);
    let Output { code, stderr, .. } = running.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

/// Ctrl-C on the server: what is acknowledged is there afterwards, and a producer at work goes on with the next one.
#[test]
fn ctrl_c_on_the_server_while_producing() {
    let (_dir, mut server, cli) = started();
    cli.run("topic create t --partitions 3").ok();
    let mut running = cli.spawn(&["produce", "t"]);
    let mut stdin = running.child.stdin.take().unwrap();
    let numbers = |range: std::ops::Range<u32>| range.map(|number| format!("{number}\n")).collect::<String>().into_bytes();
    stdin.write_all(&numbers(0..30_000)).unwrap();
    server.signal(Signal::INT);
    assert!(server.wait().success(), "a clean stop is a success");
    server.start();
    stdin.write_all(&numbers(30_000..60_000)).unwrap();
    drop(stdin);
    let produced = running.finish();
    assert_eq!(produced.code, Some(0), "{}", produced.stderr);
    let text = cli.run("consume t --until-end").ok();
    let read: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(read.len(), 60_000, "nothing is there twice");
    assert_eq!(read.iter().collect::<BTreeSet<_>>().len(), 60_000, "nothing is missing");
}

#[test]
fn nobody_listens() {
    let cli = Cli::new(ports::free().to_string());
    for line in [
        "topic list",
        "cluster health",
        "cluster verify",
        "node drain 2",
        "produce t",
        "consume t --until-end",
        "group committed g t",
        "bench latency --seconds 1",
    ] {
        let started = Instant::now();
        let said = cli.run(line).fails(5);
        assert!(said.contains("cannot reach"), "{line}: {said}");
        assert!(started.elapsed() < BOUNDED, "{line} took {:?}", started.elapsed());
    }
}

/// A port that takes connections and never answers.
#[test]
fn somebody_listens_and_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cli = Cli::new(listener.local_addr().unwrap().to_string());
    let started = Instant::now();
    cli.run("topic list").fails(5);
    assert!(started.elapsed() < BOUNDED, "it took {:?}", started.elapsed());
}

#[test]
fn the_http_port_is_not_the_grpc_port() {
    let (_dir, server, cli) = started();
    let said = cli.run(&format!("topic list --addr {}", server.http_address())).fails(5);
    assert!(said.contains(&format!("{} is not Flotilla's gRPC port", server.http_address())), "{said}");
}

#[test]
fn a_second_server_on_the_same_directory_or_port() {
    let (dir, server, cli) = started();
    let (listen, http) = (ports::free().to_string(), ports::free().to_string());
    let data = dir.path().join("data").to_string_lossy().into_owned();
    let locked = cli.args(&["server", "--data-dir", &data, "--listen", &listen, "--http", &http], b"").fails(1);
    assert!(locked.contains("is in use by process"), "{locked}");
    let other = dir.path().join("other").to_string_lossy().into_owned();
    let taken = cli.args(&["server", "--data-dir", &other, "--listen", &server.address(), "--http", &http], b"").fails(1);
    assert!(taken.contains("cannot listen on") && taken.contains("stop what uses it"), "{taken}");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let path = file.to_string_lossy();
    let no_directory = cli.args(&["server", "--data-dir", &path, "--listen", &listen, "--http", &http], b"").fails(1);
    assert!(no_directory.contains("is a file, not a directory"), "{no_directory}");
    cli.run("topic list").ok();
}

/// `2>&1 | head` closes it early: what there is to say is lost, the exit code is not.
#[test]
fn a_closed_stderr_changes_no_exit_code() {
    let mut command = std::process::Command::new(flotilla_tests::server::binary());
    command.args(["--addr", "127.0.0.1:1", "topic", "list"]).stdout(std::process::Stdio::null());
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
