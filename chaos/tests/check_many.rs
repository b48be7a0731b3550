//! Checking a long history takes neither long nor much memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufWriter, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Records, of which each is written once, read by a reader, and read at the end from two replicas.
fn records() -> u64 {
    std::env::var("FLOTILLA_CHECK_RECORDS").map_or(100_000, |given| given.parse().unwrap())
}

const PARTITIONS: u64 = 16;
const TOGETHER: u64 = 10;
/// Of 10 million records; less have less.
const TOOK_MAX: Duration = Duration::from_secs(120);
const RESIDENT_KIB_MAX: u64 = 4 << 20;

fn line(to: &mut impl Write, line: &Value) {
    serde_json::to_writer(&mut *to, line).unwrap();
    to.write_all(b"\n").unwrap();
}

/// One producer for each partition; ten records of a partition are sent together, and read together.
fn write(to: &mut impl Write, records: u64) {
    let lots = records / PARTITIONS / TOGETHER;
    for partition in 0..PARTITIONS {
        for lot in 0..lots {
            for number in 0..TOGETHER {
                let offset = lot * TOGETHER + number;
                let id = json!({"producer": partition, "sequence": offset});
                let (invoked, completed) = (lot * 1_000, lot * 1_000 + 500);
                let outcome = json!({"ok": offset});
                line(
                    to,
                    &json!({"produce": {"id": id, "session": 0, "batch": lot, "node": 1, "partition": partition, "invoked": invoked,
                        "completed": completed, "outcome": outcome}}),
                );
            }
            let seen: Vec<Value> =
                (lot * TOGETHER..(lot + 1) * TOGETHER).map(|offset| json!([offset, [partition, offset]])).collect();
            line(
                to,
                &json!({"poll": {"reader": 0, "session": 0, "node": 1, "invoked": lot * 1_000 + 510, "completed": lot * 1_000 + 520,
                    "partition": partition, "high_watermark": (lot + 1) * TOGETHER, "end_is_certain": true, "records": seen}}),
            );
            for source in ["node 1", "node 2"] {
                line(to, &json!({"final_read": {"source": source, "partition": partition, "records": seen}}));
            }
        }
    }
}

#[test]
fn a_long_history_is_checked_quickly() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.ndjson");
    let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
    write(&mut file, records());
    file.flush().unwrap();
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_flotilla-chaos")).args(["check", "--json"]).arg(&path).output().unwrap();
    let (took, said) = (began.elapsed(), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(verdict["verdict"], "pass", "{said}");
    assert_eq!(verdict["records"]["ok"].as_u64().unwrap(), records() / PARTITIONS / TOGETHER * TOGETHER * PARTITIONS);
    let resident_kib = verdict["resident_kib_max"].as_u64().unwrap();
    println!("{} records checked in {took:?} with at most {resident_kib} KiB", records());
    assert!(took < TOOK_MAX, "it took {took:?}");
    assert!(resident_kib < RESIDENT_KIB_MAX, "it took {resident_kib} KiB");
}
