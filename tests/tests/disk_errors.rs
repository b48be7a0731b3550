//! Single errors of the disk while a node starts, injected by strace: what cannot be read for once is neither missing nor
//! damaged. Needs strace, and the right to use it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use flotilla_tests::mounts;
use flotilla_tests::read;
use flotilla_tests::server::Server;

const TOPIC: &str = "errors";
const RECORDS: u64 = 2_000;
const ARGS: [&str; 2] = ["--journal-bytes", "128MiB"];

/// The command that runs a node of which `syscall` fails with `inject` on `files`; `None`: it cannot be had here.
fn strace(files: &[PathBuf], syscall: &str, inject: &str) -> Option<Vec<String>> {
    let path = std::env::var_os("PATH")?;
    let strace = std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|program| program.is_file())?;
    let works = Command::new(&strace).args(["-f", "-e", "trace=none", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let (trace, inject) = (format!("trace={syscall}"), format!("inject={syscall}:{inject}"));
    // The tracer is not the parent: the process that is started is the node itself.
    let strace = strace.to_string_lossy();
    let options = [&*strace, "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned);
    let files = files.iter().flat_map(|file| ["-P".to_owned(), file.to_string_lossy().into_owned()]);
    Some(options.into_iter().chain(files).collect())
}

fn journal_files(data_dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(data_dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_while_a_node_starts_lose_nothing_and_damage_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let current = [data_dir.join("state/CURRENT")];
    if strace(&current, "openat", "error=EIO").is_none() {
        return mounts::skip("disk_errors", "strace does not run here");
    }
    let mut server = Server::started(&data_dir, &ARGS);
    let client = server.client().await;
    read::create_topic(&client, TOPIC, 3).await;
    let history = flotilla_tests::history::send(&client, TOPIC, 1_000, 0..RECORDS).await.unwrap();
    assert_eq!(history.acked() as u64, RECORDS);
    // What was written last is not proven by anything: it must not be taken for torn.
    server.kill();
    let mut refusals = 0;
    for (files, syscall, inject) in [
        (journal_files(&data_dir), "pread64", "error=EIO:when=1"),
        (journal_files(&data_dir), "pread64", "error=EIO:when=5"),
        (journal_files(&data_dir), "openat", "error=EMFILE:when=1"),
        (current.to_vec(), "openat", "error=EIO:when=1"),
        (current.to_vec(), "openat", "error=EMFILE:when=1"),
        (journal_files(&data_dir), "pread64", "error=EIO"),
        (current.to_vec(), "openat", "error=EIO"),
    ] {
        let what = format!("{syscall} {inject}");
        server.run_under(&strace(&files, syscall, inject).unwrap());
        match server.try_start() {
            Ok(_) => assert!(inject.contains("when"), "{what}: it started without what it cannot read"),
            Err(refused) => {
                assert!(!inject.contains("when"), "{what}: it did not start:\n{}", refused.log);
                assert!(refused.log.contains("Input/output error"), "{what}: it does not say why:\n{}", refused.log);
                refusals += 1;
                server.run_under(&[]);
                server.start();
            }
        }
        let client = server.client().await;
        history.check(&read::all(&client, TOPIC).await);
        assert!(!data_dir.join("damaged").exists(), "{what}: something was called damaged:\n{}", server.log());
        server.kill();
    }
    assert_eq!(refusals, 2);
}
