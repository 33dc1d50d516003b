use super::*;

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[test]
fn a_crash_keeps_what_was_synced_and_may_drop_the_rest() {
    let disk = SimDisk::new(1);
    let file = disk.open("f", Open::Create).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&disk.crash(&mut || 1), "f"), None, "its name was never synced");
    disk.sync_dir("").unwrap();
    file.write_at(&[2; 1024], 512).unwrap();
    let lost = disk.crash(&mut || 5);
    assert_eq!(content(&lost, "f"), Some(vec![1; 1024]));
    let kept = [[1; 512], [2; 512], [2; 512]].concat();
    assert_eq!(content(&disk.crash(&mut || 0), "f"), Some(kept.clone()));
    assert_eq!(content(&disk.kill(), "f"), Some(kept));
    disk.remove("f").unwrap();
    assert!(content(&disk.crash(&mut || 5), "f").is_some(), "an unsynced removal may be undone");
}

#[test]
fn faults_come_when_they_are_ordered() {
    let disk = SimDisk::new(1);
    let file = disk.open("f", Open::Create).unwrap();
    disk.fail_after(2);
    file.write_at(b"1", 0).unwrap();
    assert_eq!(file.write_at(b"2", 0).unwrap_err().raw_os_error(), Some(libc::EIO));
    file.write_at(b"3", 0).unwrap();
    disk.set_space_free(1);
    assert_eq!(file.write_at(b"456", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(b"45", 0).unwrap();
    disk.crash_after(1);
    file.sync().unwrap();
    assert!(file.sync().is_err() && file.len().is_err());
    assert_eq!(disk.mutations(), 7);
    assert_eq!(content(&disk.kill(), "f"), Some(b"45".to_vec()));
}

#[test]
fn a_write_may_stop_in_the_middle_or_be_done_and_fail() {
    let disk = SimDisk::new(1);
    let file = disk.open("f", Open::Create).unwrap();
    disk.fail_with(1, Failure::Short);
    assert!(file.write_at(&[1; 5000], 0).is_err());
    let len = file.len().unwrap();
    assert!((1..5000).contains(&len), "{len} bytes of it");
    disk.fail_with(1, Failure::Late);
    assert!(file.write_at(&[2; 5000], 0).is_err());
    assert_eq!(content(&disk, "f"), Some(vec![2; 5000]));
    disk.fill_after(2, 100);
    file.write_at(&[3; 6000], 0).unwrap();
    assert_eq!(file.write_at(&[4; 1000], 6000).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 6100, "as much as there was room for");
    disk.fail_read_after(2);
    assert_eq!(file.len().unwrap(), 6100);
    assert!(file.len().is_err() && file.len().is_ok());
    disk.crash_after(0);
    assert!(file.write_at(&[5; 3000], 0).is_err() && disk.is_down() && file.len().is_err());
    let bytes = content(&disk.kill(), "f").unwrap();
    assert_eq!(bytes.len(), 6100);
    assert!(bytes[2999] == 3 && bytes[0] == 5, "cut off in the middle");
}

/// The images of every crash agree with a dull disk that keeps both images whole.
#[test]
fn what_power_loss_leaves_is_made_of_both_images_by_sectors() {
    let disk = SimDisk::new(7);
    let file = disk.open("f", Open::Create).unwrap();
    disk.sync_dir("").unwrap();
    let (mut live, mut durable): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    for round in 0..2000u32 {
        let (at, len) = (disk.random() as usize % 3000, 1 + disk.random() as usize % 1500);
        match disk.random() % 6 {
            0 => {
                file.sync().unwrap();
                durable = live.clone();
            }
            1 => {
                file.set_len(at as u64).unwrap();
                live.resize(at, 0);
            }
            2 => {
                file.punch(at as u64, len as u64).unwrap();
                let end = (at + len).min(live.len());
                live.get_mut(at..end).into_iter().for_each(|part| part.fill(0));
            }
            _ => {
                let bytes = vec![round as u8 | 1; len];
                file.write_at(&bytes, at as u64).unwrap();
                live.resize(live.len().max(at + len), 0);
                live[at..at + len].copy_from_slice(&bytes);
            }
        }
        assert_eq!(content(&disk, "f").unwrap(), live);
        assert_eq!(content(&disk.crash(&mut || 5), "f").unwrap(), durable, "all of it goes");
        assert_eq!(content(&disk.crash(&mut || 0), "f").unwrap(), live, "all of it stays");
        let left = content(&disk.crash(&mut || disk.random()), "f").unwrap();
        assert!(left.len() == live.len() || left.len() == durable.len());
        for (at, byte) in left.iter().enumerate() {
            let of = |image: &Vec<u8>| image.get(at).copied().unwrap_or(0);
            assert!(*byte == of(&live) || *byte == of(&durable), "byte {at} is of neither");
        }
    }
}
