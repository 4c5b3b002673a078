//! Whether a folder can hold what must not be lost: it is ours alone, and the disk under it is this machine's.

use super::StoreError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::Path;

/// Takes a folder for this process, as long as the file is open; it is made if it is not there.
///
/// Errors: another gateway has it, it cannot be written to, or it lies on another machine.
pub(super) fn take(folder: &Path, lock: &str) -> Result<File, StoreError> {
    let failed = |what: &'static str| {
        let path = folder.to_owned();
        move |source| StoreError::Io { what, path, source }
    };
    fs::create_dir_all(folder).map_err(failed("create"))?;
    writable(folder)?;
    if let Some(system) = network(folder).map_err(failed("examine"))? {
        return Err(StoreError::Unusable(format!(
            "`{}` lies on {system}, a file system of another machine, where neither locks nor what was made durable can be \
             relied upon; give the gateway a `data_dir` on a local disk",
            folder.display()
        )));
    }
    let path = folder.join(lock);
    let failed = |what: &'static str| {
        let path = path.clone();
        move |source| StoreError::Io { what, path, source }
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("create"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "another gateway is using `{}`; stop it, or give each gateway a `data_dir` of its own",
            folder.display()
        ))),
        Err(TryLockError::Error(source)) => Err(failed("lock")(source)),
    }
}

/// Refuses what its owner protected from writing; a superuser's process could write to it all the same.
pub(super) fn writable(path: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(path).map_err(|source| StoreError::Io {
        what: "examine",
        path: path.to_owned(),
        source,
    })?;
    if metadata.permissions().readonly() {
        return Err(StoreError::Unusable(format!(
            "`{}` is read-only; let the gateway write to it, or give it another `data_dir`",
            path.display()
        )));
    }
    Ok(())
}

/// The name of the file system, if it is one of another machine's.
#[cfg(target_os = "linux")]
fn network(folder: &Path) -> std::io::Result<Option<&'static str>> {
    use std::os::linux::fs::MetadataExt;
    let magic = rustix::fs::statfs(folder)?.f_type as u32;
    if magic != FUSE {
        return Ok(by_magic(magic));
    }
    let device = fs::metadata(folder)?.st_dev();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(by_mount(
        &mounts,
        rustix::fs::major(device),
        rustix::fs::minor(device),
    ))
}

#[cfg(not(target_os = "linux"))]
fn network(_: &Path) -> std::io::Result<Option<&'static str>> {
    Ok(None)
}

/// `statfs` says only that a program of somebody's is behind it.
const FUSE: u32 = 0x6573_5546;

/// By what `statfs` says (linux/magic.h, and the file systems' own sources).
fn by_magic(magic: u32) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xfe53_4d42 | 0xff53_4d42 => "SMB",
        0x0102_1997 => "9p",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x00c3_6400 => "Ceph",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        0x0bd0_0bd0 => "Lustre",
        _ => return None,
    })
}

/// By the name that a program gave its mount: `major:minor` is the third word of a line, and the type stands after ` - `.
fn by_mount(mounts: &str, major: u32, minor: u32) -> Option<&'static str> {
    let device = format!("{major}:{minor}");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(&device))?;
    let (_, behind) = line.split_once(" - ")?;
    let name = behind.split(' ').next()?.strip_prefix("fuse.")?;
    const NETWORK: [&str; 13] = [
        "sshfs",
        "s3fs",
        "rclone",
        "gcsfuse",
        "goofys",
        "glusterfs",
        "ceph-fuse",
        "davfs2",
        "curlftpfs",
        "mount-s3",
        "juicefs",
        "seaweedfs",
        "smbnetfs",
    ];
    NETWORK.into_iter().find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_gateways() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/when/needed");
        let held = take(&folder, "lock").unwrap();
        let error = take(&folder, "lock").unwrap_err().to_string();
        assert!(error.contains("another gateway is using"), "{error}");
        drop(held);
        take(&folder, "lock").unwrap();
    }

    #[test]
    fn a_protected_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("kept");
        fs::create_dir(&folder).unwrap();
        let mut permissions = fs::metadata(&folder).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&folder, permissions).unwrap();
        let error = take(&folder, "lock").unwrap_err().to_string();
        assert!(error.contains("read-only"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn file_systems_of_other_machines_are_known() {
        for (magic, name) in [
            (0x6969, Some("NFS")),
            (0xff53_4d42, Some("SMB")),
            (0x0102_1997, Some("9p")),
            (0xef53, None),
            (0x0102_1994, None),
        ] {
            assert_eq!(by_magic(magic), name, "{magic:x}");
        }
        let mounts = "36 25 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            90 36 0:52 / /far rw shared:2 master:1 - fuse.sshfs host:/ rw,user_id=0\n\
            91 36 0:53 / /near rw - fuse.gocryptfs /plain rw\n\
            92 36 0:54 / /host rw - fuse host rw\n";
        assert_eq!(by_mount(mounts, 0, 52), Some("sshfs"));
        assert_eq!(by_mount(mounts, 0, 53), None);
        assert_eq!(by_mount(mounts, 0, 54), None);
        assert_eq!(by_mount(mounts, 0, 5), None);
    }
}
