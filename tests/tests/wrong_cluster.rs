//! Two clusters with a crossed address: a node of one advertises an address at which a node of the other answers, as happens
//! with port forwards and "localhost".
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fmt::Write as _;

use flotilla_tests::cli::Cli;
use flotilla_tests::server::Server;
use serde_json::Value;

fn cluster_id(cli: &Cli) -> String {
    let status: Value = serde_json::from_str(&cli.run("cluster status -o json").ok()).unwrap();
    status["cluster_id"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_produced_to_a_cluster_lands_there_whatever_its_nodes_advertise() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Server::started(&dir.path().join("elsewhere"), &[]);
    let here = Server::started(&dir.path().join("here"), &["--advertise", &elsewhere.address()]);
    let (cli, other) = (Cli::new(here.address()), Cli::new(elsewhere.address()));
    cli.run("topic create t --partitions 2").ok();
    other.run("topic create t --partitions 2").ok();
    let (own, foreign) = (cluster_id(&cli), cluster_id(&other));
    let lines = (0..500).fold(String::new(), |mut lines, number| {
        writeln!(lines, "{number}").unwrap();
        lines
    });
    let produced = cli.input("produce t", lines.as_bytes());
    for words in [&elsewhere.address(), &own, &foreign, "is not used", "--advertise"] {
        assert!(produced.stderr.contains(words), "{words:?} is not said: {}", produced.stderr);
    }
    assert!(produced.stderr.matches("is not used").count() == 1, "once is enough: {}", produced.stderr);
    produced.ok();
    let read = |cli: &Cli| cli.run("consume t --until-end").ok().lines().count();
    assert_eq!((read(&cli), read(&other)), (500, 0));
    // Administration, too.
    cli.run("topic create only-here").ok();
    cli.run("topic delete t").ok();
    assert!(!other.run("topic list").ok().contains("only-here"));
    other.run("topic describe t").ok();
}

#[test]
fn a_cluster_that_is_gone_is_not_replaced_by_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = Server::started(&dir.path().join("elsewhere"), &[]);
    let mut here = Server::started(&dir.path().join("here"), &["--advertise", &elsewhere.address()]);
    let (cli, other) = (Cli::new(here.address()), Cli::new(elsewhere.address()));
    cli.run("topic create t").ok();
    other.run("topic create t").ok();
    let mut producing = cli.spawn(&["produce", "t", "--delivery-timeout", "3s", "--linger", "0s"]);
    let mut stdin = producing.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"first\n").unwrap();
    producing.says("is not used");
    here.kill();
    std::io::Write::write_all(&mut stdin, b"second\n").unwrap();
    drop(stdin);
    let produced = producing.finish();
    assert_ne!(produced.code, Some(0), "{}", produced.stderr);
    assert_eq!(other.run("consume t --until-end").ok(), "");
}
