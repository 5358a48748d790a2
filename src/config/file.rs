//! The file on disk: read with a limit and a stamp that tells whether it
//! changed, and replaced all at once. It must not know what the text means.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::tree::LARGEST_TEXT;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
    /// Written so shortly before it was read that another write could leave
    /// the same stamp: it must be read again to be sure.
    unsure: bool,
}

impl Stamp {
    fn of(metadata: &Metadata, now: SystemTime) -> Self {
        let age = metadata
            .modified()
            .ok()
            .and_then(|at| now.duration_since(at).ok());
        Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
            inode: metadata.ino(),
            unsure: age.is_none_or(|age| age < SETTLED),
        }
    }

    /// Whether the file surely is as it was when this stamp was taken.
    pub(in crate::config) fn still_holds(&self, path: &Path) -> bool {
        let same = |now: Metadata| {
            let now = Self::of(&now, SystemTime::UNIX_EPOCH);
            (now.modified, now.length, now.inode) == (self.modified, self.length, self.inode)
        };
        !self.unsure && fs::metadata(path).is_ok_and(same)
    }
}

/// Clocks of file systems tick as slowly as this.
const SETTLED: Duration = Duration::from_secs(3);

/// Reads the whole file. `now` dates the stamp.
pub(in crate::config) fn read(path: &Path, now: SystemTime) -> io::Result<(String, Stamp)> {
    let file = File::open(path)?;
    let before = file.metadata()?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST_TEXT).unwrap_or(u64::MAX);
    (&file).take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST_TEXT {
        let message = format!("it has more than {} MB", LARGEST_TEXT >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(good)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        io::Error::new(ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })?;
    let mut stamp = Stamp::of(&before, now);
    // Somebody wrote while we read.
    let after = Stamp::of(&file.metadata()?, now);
    stamp.unsure |= after != stamp;
    Ok((text, stamp))
}

/// Replaces the file's text so that a reader sees the old or the new one and
/// a crash leaves one of them. The mode stays; a new file is its owner's
/// alone, as it holds secrets. A symbolic link is followed, not replaced.
pub(in crate::config) fn write(path: &Path, text: &str) -> io::Result<()> {
    prepare(path, text)?.commit()
}

/// A new text, on the disk beside the old one. Dropped, it is gone.
pub(in crate::config) struct Prepared<'a> {
    path: PathBuf,
    text: &'a str,
    draft: Draft,
}

/// Does all of [`write()`] that may fail for want of space.
pub(in crate::config) fn prepare<'a>(path: &Path, text: &'a str) -> io::Result<Prepared<'a>> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&path).map_or(0o600, |found| found.permissions().mode() & 0o7777);
    let draft = Draft::beside(&path)?;
    draft.fill(text)?;
    // Until it is whole, only its owner may look at it; and the process's mask
    // must not take bits away.
    draft
        .file
        .set_permissions(PermissionsExt::from_mode(mode))?;
    Ok(Prepared { path, text, draft })
}

impl Prepared<'_> {
    /// Puts it in place of the old one.
    pub(in crate::config) fn commit(self) -> io::Result<()> {
        match fs::rename(&self.draft.path, &self.path) {
            // A file mounted by itself, as containers do, can't be renamed over.
            // Writing into it is not atomic, so the draft stays until it's done.
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                write_into(&self.path, self.text)?;
            }
            done => done?,
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}

/// The file's stamp, without reading it.
pub(in crate::config) fn stamp(path: &Path, now: SystemTime) -> io::Result<Stamp> {
    Ok(Stamp::of(&fs::metadata(path)?, now))
}

/// Creates the file unless it is there.
pub(in crate::config) fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Removes drafts of processes that were killed while they wrote. What can't be
/// removed stays, and does no harm.
pub(in crate::config) fn sweep(path: &Path) {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let begins = format!(".{}.", name.to_string_lossy());
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let process = name
            .strip_prefix(&begins)
            .and_then(|rest| rest.strip_suffix(".tmp"));
        let process = process.and_then(|number| number.parse::<u32>().ok());
        if process.is_some_and(|number| !Path::new(&format!("/proc/{number}")).exists()) {
            drop(fs::remove_file(entry.path()));
        }
    }
}

fn write_into(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The new text under another name; gone when dropped.
struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        let path = path.with_file_name(name);
        // Left behind by a process that was killed and had our id.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { path, file })
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        (&self.file).write_all(text.as_bytes())?;
        self.file.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove, and before it a
        // draft that can't be removed is replaced by the next.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_write_replaces_the_text_keeps_the_mode_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        write(&path, "new").unwrap();
        assert_eq!(read(&path, later()).unwrap().0, "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        create(&path, "x").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            create(&path, "y").unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (
            folder.path().join("real.yaml"),
            folder.path().join("plexus.yaml"),
        );
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }

    #[test]
    fn drafts_of_processes_that_are_gone_are_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        let beside = |name: &str| folder.path().join(name);
        // No process has that number: the kernel's largest is 2^22.
        let gone = beside(".plexus.yaml.4194999.tmp");
        let kept = [
            path.clone(),
            beside(&format!(".plexus.yaml.{}.tmp", std::process::id())),
            beside(".plexus.yaml.mine.tmp"),
            beside(".other.yaml.4194999.tmp"),
        ];
        fs::write(&gone, "x").unwrap();
        kept.iter().for_each(|path| fs::write(path, "x").unwrap());
        sweep(&path);
        assert!(!gone.exists() && kept.iter().all(|path| path.exists()));
    }

    #[test]
    fn writing_into_a_file_keeps_its_inode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        fs::write(&path, "a longer text").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        write_into(&path, "short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[test]
    fn a_stamp_holds_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        fs::write(&path, "one").unwrap();
        let (_, stamp) = read(&path, later()).unwrap();
        assert!(stamp.still_holds(&path));
        write(&path, "two").unwrap();
        assert!(!stamp.still_holds(&path));
        // Just written: the next write might leave the same stamp.
        let (_, fresh) = read(&path, SystemTime::now()).unwrap();
        assert!(!fresh.still_holds(&path));
    }

    #[test]
    fn what_is_no_text_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plexus.yaml");
        fs::write(&path, b"a: 1\nb: \xff\n").unwrap();
        assert_eq!(
            read(&path, later()).unwrap_err().to_string(),
            "line 2 is not UTF-8"
        );
        fs::write(&path, vec![b' '; LARGEST_TEXT + 1]).unwrap();
        assert_eq!(
            read(&path, later()).unwrap_err().kind(),
            ErrorKind::FileTooLarge
        );
        assert_eq!(
            read(folder.path(), later()).unwrap_err().kind(),
            ErrorKind::IsADirectory
        );
    }
}
