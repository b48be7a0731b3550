//! Data directories that are new, taken, foreign, damaged, or lack something.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn identity() -> Identity {
    Identity { cluster_id: ClusterId(*b"0123456789abcdef"), node_id: 7, directory_id: [3; 16], created_at_ms: 1_700_000_000_000 }
}

fn must_exist() -> Identity {
    panic!("the directory already has an identity")
}

#[test]
fn a_new_directory_keeps_its_first_identity() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let opened = DataDir::open(&path, identity).unwrap();
    assert_eq!(opened.identity(), identity());
    assert!(opened.journal_dir().is_dir() && opened.groups_dir().is_dir() && opened.state_dir().is_dir());
    drop(opened);
    let opened = DataDir::open(&path, must_exist).unwrap();
    assert_eq!(opened.identity(), identity());
    opened.expect_cluster(identity().cluster_id).unwrap();
    let error = opened.expect_cluster(ClusterId([9; 16])).unwrap_err().to_string();
    assert!(error.contains("30313233-3435-3637-3839-616263646566"), "{error}");
    assert!(error.contains("09090909-0909-0909-0909-090909090909"), "{error}");
}

#[test]
fn a_directory_of_an_older_version_becomes_one_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), identity).unwrap());
    let meta = dir.path().join("META");
    let lines = fs::read_to_string(&meta).unwrap().replace(&format!("layout {LAYOUT_VERSION}"), "layout 1");
    let lines = &lines[..lines.find("crc32c").unwrap()];
    fs::write(&meta, format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))).unwrap();
    assert_eq!(DataDir::open(dir.path(), must_exist).unwrap().identity(), identity());
    assert_eq!(fs::read_to_string(&meta).unwrap(), meta_text(&identity()));
}

#[test]
fn a_second_user_is_told_who_the_first_is() {
    let dir = tempfile::tempdir().unwrap();
    let opened = DataDir::open(dir.path(), identity).unwrap();
    let error = DataDir::open(dir.path(), must_exist).unwrap_err();
    assert!(matches!(&error, DataDirError::Locked { .. }), "{error}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(opened);
    DataDir::open(dir.path(), must_exist).unwrap();
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = DataDir::open(dir.path(), must_exist).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_in_its_place_is_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes");
    fs::write(&path, "x").unwrap();
    let error = DataDir::open(&path, must_exist).unwrap_err().to_string();
    assert!(error.ends_with("notes is a file, not a directory; choose another --data-dir"), "{error}");
}

#[test]
fn a_first_start_that_was_cut_off_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("LOCK"), "1\n").unwrap();
    fs::write(dir.path().join("META.tmp"), "flot").unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    assert_eq!(DataDir::open(dir.path(), identity).unwrap().identity(), identity());
    assert!(!dir.path().join("META.tmp").exists());
}

#[test]
fn a_node_does_not_go_on_without_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), identity).unwrap());
    for name in DIRECTORIES {
        fs::remove_dir(dir.path().join(name)).unwrap();
    }
    let error = DataDir::open(dir.path(), must_exist).unwrap_err().to_string();
    assert!(error.contains("journal is missing"), "{error}");
    assert!(DIRECTORIES.iter().all(|name| !dir.path().join(name).exists()));
    fs::create_dir(dir.path().join(JOURNAL)).unwrap();
    // What the journal knows of the others is found out by asking it.
    DataDir::open(dir.path(), must_exist).unwrap();
}

#[test]
fn every_flipped_or_missing_byte_of_meta_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), identity).unwrap());
    let meta = dir.path().join("META");
    let intact = fs::read(&meta).unwrap();
    for place in 0..intact.len() {
        let mut flipped = intact.clone();
        flipped[place] ^= 4;
        for bytes in [&flipped, &intact[..place]] {
            fs::write(&meta, bytes).unwrap();
            let error = DataDir::open(dir.path(), must_exist).unwrap_err();
            assert!(matches!(&error, DataDirError::Damaged { file, .. } if *file == meta), "{error}");
            assert_eq!(&fs::read(&meta).unwrap(), bytes);
        }
    }
    fs::remove_file(&meta).unwrap();
    let error = DataDir::open(dir.path(), must_exist).unwrap_err().to_string();
    assert!(error.contains("META is damaged: the file is missing"), "{error}");
}

#[test]
fn a_newer_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(DataDir::open(dir.path(), identity).unwrap());
    let newer = LAYOUT_VERSION + 1;
    let lines = format!("{TITLE}\nlayout {newer}\nwhatever comes then\n");
    let text = format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()));
    fs::write(dir.path().join("META"), text).unwrap();
    let error = DataDir::open(dir.path(), must_exist).unwrap_err();
    assert!(matches!(error, DataDirError::NewerLayout { found, .. } if found == newer), "{error}");
}

proptest! {
    #[test]
    fn every_identity_comes_back(cluster_id: [u8; 16], node_id: u64, directory_id: [u8; 16], created_at_ms: i64) {
        let identity = Identity { cluster_id: ClusterId(cluster_id), node_id, directory_id, created_at_ms };
        prop_assert_eq!(parse_meta(meta_text(&identity).as_bytes()), Ok((LAYOUT_VERSION, Some(identity))));
        prop_assert_eq!(identity.cluster_id.to_string().parse(), Ok(identity.cluster_id));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
        prop_assert!(parse_meta(&bytes).is_err());
    }
}
