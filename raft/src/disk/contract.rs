//! What every provider of [`Disk`] must do, run by each of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::error::{ATTEMPTS, Class, Operation};
use super::patient::PatientDisk;
use super::real::RealDisk;
use super::sim::{Injection, SimDisk, code};
use super::{Disk, DiskFile};
use crate::driver::Driver;
use crate::troubles::Troubles;

fn read(file: &dyn DiskFile, offset: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xAA; len];
    file.read_exact_at(&mut buf, offset).unwrap();
    buf
}

fn contract(disk: &dyn Disk, root: &Path) {
    files_keep_what_is_written(disk, root);
    many_slices_are_written_in_order(disk, root);
    lengths_change(disk, root);
    names_change(disk, root);
    directories_change(disk, root);
}

fn files_keep_what_is_written(disk: &dyn Disk, root: &Path) {
    let path = root.join("content");
    assert_eq!(disk.open(&path, false).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.open_uncached(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let file = disk.open(&path, true).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(&[IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"def")], 5).unwrap();
    assert_eq!(file.len().unwrap(), 11);
    assert_eq!(read(&*file, 0, 11), b"\0\0\0\0\0abcdef");
    file.write_all_at(&[IoSlice::new(b"XY")], 6).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&*disk.open(&path, true).unwrap(), 5, 6), b"aXYdef", "opening with create keeps the content");
    let uncached = disk.open_uncached(&path).unwrap();
    assert_eq!(read(&*uncached, 5, 6), b"aXYdef");
    assert!(uncached.write_all_at(&[IoSlice::new(b"no")], 0).is_err());
    let mut buf = [0; 12];
    assert_eq!(file.read_exact_at(&mut buf, 0).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

fn many_slices_are_written_in_order(disk: &dyn Disk, root: &Path) {
    let file = disk.open(&root.join("slices"), true).unwrap();
    let numbers: Vec<[u8; 4]> = (0..3000_u32).map(u32::to_le_bytes).collect();
    let slices: Vec<_> = numbers.iter().map(|number| IoSlice::new(number)).collect();
    file.write_all_at(&slices, 4096).unwrap();
    assert_eq!(read(&*file, 4096, 12000), numbers.concat());
}

fn lengths_change(disk: &dyn Disk, root: &Path) {
    let file = disk.open(&root.join("lengths"), true).unwrap();
    file.write_all_at(&[IoSlice::new(&[7; 10])], 0).unwrap();
    file.set_len(4).unwrap();
    file.set_len(8).unwrap();
    assert_eq!(read(&*file, 0, 8), [7, 7, 7, 7, 0, 0, 0, 0], "what was cut off does not come back");
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    assert_eq!(read(&*file, 0, 5), [7, 7, 7, 7, 0]);
    file.allocate(100).unwrap();
    assert_eq!(file.len().unwrap(), 10_000, "allocating never cuts");
}

fn names_change(disk: &dyn Disk, root: &Path) {
    let (a, b) = (root.join("names-a"), root.join("names-b"));
    let file = disk.open(&a, true).unwrap();
    file.write_all_at(&[IoSlice::new(b"new")], 0).unwrap();
    disk.open(&b, true).unwrap().write_all_at(&[IoSlice::new(b"old")], 0).unwrap();
    disk.rename(&a, &b).unwrap();
    disk.sync_dir(root).unwrap();
    assert_eq!(disk.open(&a, false).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(read(&*disk.open(&b, false).unwrap(), 0, 3), b"new");
    disk.remove(&b).unwrap();
    assert_eq!(disk.remove(&b).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.rename(&b, &a).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(read(&*file, 0, 3), b"new", "an open handle outlives the name");
}

fn directories_change(disk: &dyn Disk, root: &Path) {
    let deep = root.join("dir/deep");
    assert!(disk.open(&deep.join("x"), true).is_err(), "the directory must exist");
    assert_eq!(disk.list(&deep).unwrap_err().kind(), ErrorKind::NotFound);
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    for name in ["b", "c", "a"] {
        disk.open(&deep.join(name), true).unwrap();
    }
    assert_eq!(disk.list(&deep).unwrap(), ["a", "b", "c"].map(|name| deep.join(name)));
    assert_eq!(disk.list(&root.join("dir")).unwrap(), std::slice::from_ref(&deep));
    disk.rename(&deep, &root.join("dir/moved")).unwrap();
    assert_eq!(disk.list(&root.join("dir/moved")).unwrap().len(), 3);
    disk.remove_dir_all(&root.join("dir")).unwrap();
    assert!(disk.list(&root.join("dir")).is_err());
}

#[test]
fn real_disk_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    contract(&RealDisk, root.path());
}

#[test]
fn simulated_disk_keeps_the_contract() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data")).unwrap();
    contract(&disk, Path::new("/data"));
}

#[test]
fn a_patient_disk_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    contract(&PatientDisk::new(Arc::new(RealDisk), &Driver::Threads, Troubles::new()), root.path());
}

/// A synced file of 64 blocks of ones, then overwritten with twos and not synced.
fn overwritten(seed: u64) -> (SimDisk, std::sync::Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new("/d/f"), true).unwrap();
    file.write_all_at(&[IoSlice::new(&[1; 64 * 4096])], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(&[IoSlice::new(&[2; 64 * 4096])], 0).unwrap();
    (disk, file)
}

fn sectors(disk: &SimDisk) -> Vec<u8> {
    read(&*disk.open(Path::new("/d/f"), false).unwrap(), 0, 64 * 4096).chunks(512).map(|sector| sector[0]).collect()
}

#[test]
fn a_power_cut_keeps_loses_and_tears_unsynced_blocks() {
    let (disk, file) = overwritten(2);
    disk.power_cut();
    assert!(file.sync().is_err() && file.len().is_err(), "handles die with the power");
    let sectors = sectors(&disk);
    let blocks: Vec<_> = sectors.chunks(8).collect();
    assert!(blocks.contains(&[1; 8].as_slice()) && blocks.contains(&[2; 8].as_slice()));
    assert!(blocks.iter().any(|block| block.contains(&1) && block.contains(&2)), "some block is torn");
}

#[test]
fn synced_blocks_survive_a_power_cut_unless_sync_lies() {
    let (disk, file) = overwritten(3);
    file.sync().unwrap();
    disk.power_cut();
    assert!(sectors(&disk).iter().all(|sector| *sector == 2));
    let (disk, file) = overwritten(3);
    disk.faults(|faults| faults.lying_sync = true);
    file.sync().unwrap();
    disk.power_cut();
    assert!(sectors(&disk).contains(&1));
}

#[test]
fn a_failed_sync_forgets_what_was_dirty() {
    let (disk, file) = overwritten(4);
    disk.faults(|faults| faults.sync_fails_in = Some(0));
    assert!(file.sync().is_err());
    file.sync().unwrap();
    assert!(sectors(&disk).iter().all(|sector| *sector == 2), "the page cache still shows the new content");
    let uncached = disk.open_uncached(Path::new("/d/f")).unwrap();
    assert!(read(&*uncached, 0, 64 * 4096).contains(&1), "the device does not hold all of it");
    disk.power_cut();
    assert!(sectors(&disk).contains(&1));
}

#[test]
fn names_are_durable_only_after_sync_dir() {
    let lost = (0..50).filter(|seed| {
        let disk = SimDisk::new(*seed);
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk.open(Path::new("/d/f"), true).unwrap();
        disk.power_cut();
        disk.list(Path::new("/d")).unwrap().is_empty()
    });
    assert!((1..50).contains(&lost.count()));
}

#[test]
fn planned_faults_happen_when_planned() {
    let (disk, file) = overwritten(5);
    disk.faults(|faults| faults.write_fails_in = Some(1));
    file.write_all_at(&[IoSlice::new(b"a")], 0).unwrap();
    assert!(file.write_all_at(&[IoSlice::new(b"b")], 0).is_err());
    disk.faults(|faults| faults.capacity_bytes = 65 * 4096);
    file.set_len(65 * 4096).unwrap();
    assert_eq!(file.set_len(66 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    disk.faults(|faults| faults.power_fails_in = Some(1));
    file.write_all_at(&[IoSlice::new(b"a")], 0).unwrap();
    assert!(file.sync().is_err());
    assert!(file.len().is_ok() && file.read_exact_at(&mut [0], 0).is_err(), "nothing works without power");
    disk.power_cut();
    disk.flip_bits(Path::new("/d/f"), 100..101, 1).unwrap();
    assert!(disk.open(Path::new("/d/f"), false).is_ok());
}

/// Each operation of the seam, once, by a name of its own.
fn each_operation(disk: &dyn Disk) -> Vec<(Operation, io::Result<()>)> {
    let (dir, path) = (Path::new("/d"), Path::new("/d/f"));
    let file = |create| disk.open(path, create);
    vec![
        (Operation::CreateDir, disk.create_dir_all(&dir.join("x"))),
        (Operation::Create, file(true).map(drop)),
        (Operation::Open, file(false).map(drop)),
        (Operation::Write, file(true).and_then(|file| file.write_all_at(&[IoSlice::new(b"abc")], 0))),
        (Operation::Read, file(true).and_then(|file| file.read_exact_at(&mut [0; 3], 0))),
        (Operation::Length, file(true).and_then(|file| file.len()).map(drop)),
        (Operation::SetLength, file(true).and_then(|file| file.set_len(100))),
        (Operation::Allocate, file(true).and_then(|file| file.allocate(200))),
        (Operation::Sync, file(true).and_then(|file| file.sync())),
        (Operation::SyncDir, disk.sync_dir(dir)),
        (Operation::List, disk.list(dir).map(drop)),
        (Operation::Rename, disk.rename(path, &dir.join("g"))),
        (Operation::Remove, disk.remove(&dir.join("g"))),
        (Operation::RemoveDir, disk.remove_dir_all(&dir.join("x"))),
    ]
}

fn sim(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk
}

#[test]
fn any_operation_of_the_simulated_disk_can_be_made_to_fail() {
    for operation in Operation::ALL {
        let disk = sim(1);
        disk.inject(Injection::new(operation, code::ENOSPC).on("/elsewhere").forever());
        disk.inject(Injection::new(operation, code::EDQUOT).on("/d").after(u64::from(operation == Operation::Create)));
        let failed: Vec<_> = each_operation(&disk).into_iter().filter(|(_, result)| result.is_err()).collect();
        // Of what creates, the one behind the first.
        let expected = if operation == Operation::Create { Operation::Write } else { operation };
        assert_eq!(failed[0].0, expected, "{failed:?}");
        let error = failed[0].1.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
        assert!(error.to_string().contains("/d"), "{error}");
        assert_eq!(disk.faults(|faults| (faults.injected, faults.injections.len())), (1, 1), "once, and no more");
    }
}

#[test]
fn sectors_can_be_unreadable_and_reads_can_be_wrong_for_once() {
    let (disk, file) = overwritten(6);
    disk.inject(Injection::new(Operation::Read, code::EIO).on("/d/f").within(512..1024).forever());
    disk.inject(Injection::new(Operation::Read, code::MISREAD).within(8192..8193));
    for _ in 0..2 {
        assert!(file.read_exact_at(&mut [0; 600], 0).is_err());
        assert_eq!(read(&*file, 0, 512), [2; 512]);
        assert_eq!(read(&*file, 1024, 512), [2; 512]);
    }
    disk.power_cut();
    let file = disk.open(Path::new("/d/f"), false).unwrap();
    assert!(file.read_exact_at(&mut [0; 1], 1023).is_err(), "a power cut mends no sector");
    assert_ne!(read(&*file, 8192, 1), read(&*file, 8192, 1));
}

#[test]
fn what_may_pass_is_tried_again_and_nothing_else() {
    for operation in Operation::ALL {
        for (code, passes) in [
            (code::EINTR, true),
            (code::EMFILE, true),
            (code::ENOSPC, false),
            (code::EROFS, false),
            (code::EIO, !matches!(operation, Operation::Write | Operation::Sync | Operation::SyncDir)),
        ] {
            // Whose content an error leaves open is not asked again.
            let passes = passes && !(code == code::EIO && matches!(operation, Operation::SetLength | Operation::Allocate));
            let disk = sim(1);
            let troubles = Troubles::new();
            let patient = PatientDisk::new(Arc::new(disk.clone()), &Driver::Threads, troubles.clone());
            disk.inject(Injection::new(operation, code).times(2));
            let failed = each_operation(&patient).into_iter().filter(|(_, result)| result.is_err()).count();
            assert_eq!(failed == 0, passes, "{operation:?} with {code}");
            assert_eq!(troubles.figures().counted(Class::Passing), u64::from(passes), "{operation:?} with {code}");
        }
    }
}

#[test]
fn what_stays_unreadable_is_damage_and_what_stays_passing_is_not() {
    let (disk, _) = overwritten(7);
    let patient = PatientDisk::new(Arc::new(disk.clone()), &Driver::Threads, Troubles::new());
    for (code, class) in [(code::EIO, Class::Damage), (code::EMFILE, Class::Passing)] {
        disk.faults(|faults| faults.injections = vec![Injection::new(Operation::Open, code).forever()]);
        let error = patient.open(Path::new("/d/f"), false).unwrap_err();
        assert_eq!(Class::of(&error), class, "{error}");
        assert!(error.to_string().contains("attempts"), "{error}");
    }
    disk.faults(|faults| faults.injections = vec![Injection::new(Operation::Read, code::EIO).times(u64::from(ATTEMPTS) - 1)]);
    assert_eq!(read(&*patient.open(Path::new("/d/f"), false).unwrap(), 0, 1), [2]);
}
