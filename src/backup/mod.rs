//! The archive of a full backup, in the layout that the management API has for
//! it: a gzipped tar of `manifest.json`, `config.json` and a sheet for every
//! table, `<table>.csv.gz`, or an empty `<table>.csv`.
//!
//! An archive is a file without a name, in the database's folder: it is written
//! whole before it is sent, and received whole before it is read. It is read as
//! a stream, never unpacked; what it may grow to is limited. What the tables and
//! the configuration mean is not known here.

mod guard;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::{Value, json};
use tar::{Archive as Tar, Builder, EntryType, Header};

use crate::store::{SheetError, Snapshot, contract_sheets};
use guard::Guard;

/// The version of the layout.
pub const VERSION: u64 = 1;

/// Largest `config.json`, in bytes: the largest configuration file.
const LARGEST_CONFIG: u64 = 16 << 20;
/// Largest `manifest.json`.
const LARGEST_MANIFEST: u64 = 1 << 20;
/// Most entries.
const MOST_ENTRIES: usize = 1000;

/// Why an archive can't be written or read.
#[derive(Debug)]
pub enum ArchiveError {
    /// It is no archive of this kind, or a damaged one; what was found.
    Wrong(String),
    /// The disk, or the archive's end.
    Io(io::Error),
    /// The database, or a sheet.
    Sheet(SheetError),
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(message) => f.write_str(message),
            Self::Io(error) => error.fmt(f),
            Self::Sheet(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArchiveError {}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<SheetError> for ArchiveError {
    fn from(error: SheetError) -> Self {
        Self::Sheet(error)
    }
}

/// A file that nobody else sees, gone when it is closed.
///
/// # Errors
/// The folder can't be written.
pub fn nameless(folder: &Path) -> io::Result<File> {
    tempfile::tempfile_in(folder)
}

/// What every answer and every archive says of itself.
#[must_use]
pub fn head(now: Timestamp) -> Value {
    json!({
        "plexus_backup": true,
        "version": VERSION,
        "created_at": format!("{now:.3}"),
        "dialect": "sqlite",
    })
}

/// Writes an archive; the file stands at its beginning. `config` is the part
/// that a backup without tables has as `data`.
///
/// # Errors
/// The disk is full, or the database can't be read.
pub fn write(
    folder: &Path,
    config: &Value,
    snapshot: &Snapshot<'_>,
    now: Timestamp,
) -> Result<File, ArchiveError> {
    let out = BufWriter::new(nameless(folder)?);
    // What is large in it is packed already.
    let mut tar = Builder::new(GzEncoder::new(out, Compression::fast()));
    let mut manifest = head(now);
    let sheets = snapshot.sheets()?;
    manifest["tables"] = contract_sheets().collect();
    manifest["plexus_tables"] = sheets.clone().into();
    add(
        &mut tar,
        "manifest.json",
        &mut pretty(&manifest).as_slice(),
        now,
    )?;
    add(&mut tar, "config.json", &mut pretty(config).as_slice(), now)?;
    for sheet in &sheets {
        let packed = BufWriter::new(nameless(folder)?);
        let mut packed = GzEncoder::new(packed, Compression::new(4));
        let rows = snapshot.write(sheet, &mut packed)?;
        if rows == 0 {
            add(&mut tar, &format!("{sheet}.csv"), &mut io::empty(), now)?;
            continue;
        }
        let mut packed = unbuffered(packed.finish()?)?;
        packed.rewind()?;
        add(&mut tar, &format!("{sheet}.csv.gz"), &mut packed, now)?;
    }
    let mut file = unbuffered(tar.into_inner()?.finish()?)?;
    file.rewind()?;
    Ok(file)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn unbuffered(file: BufWriter<File>) -> io::Result<File> {
    file.into_inner().map_err(io::IntoInnerError::into_error)
}

/// What goes into a tar has to say how long it is before it is there.
trait Length {
    fn length(&self) -> io::Result<u64>;
}

impl Length for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Length for &[u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Length for io::Empty {
    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }
}

fn add<F: Read + Length>(
    tar: &mut Builder<impl Write>,
    name: &str,
    from: &mut F,
    now: Timestamp,
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(from.length()?);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(now.as_second()).unwrap_or(0));
    header.set_entry_type(EntryType::Regular);
    tar.append_data(&mut header, name, from)
}

/// An archive to be read, more than once if need be.
#[derive(Debug)]
pub struct Archive {
    file: File,
    length: u64,
}

/// What an archive has besides its sheets.
pub struct Contents {
    /// The configuration: what a backup without tables has as `data`.
    pub config: Value,
    /// Files that are not known.
    pub unknown: Vec<String>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents")
            .field("unknown", &self.unknown)
            .finish_non_exhaustive()
    }
}

impl Archive {
    /// Takes a file, wherever it stands.
    ///
    /// # Errors
    /// The file can't be looked at.
    pub fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    /// Reads manifest and configuration, and sees that the archive is whole.
    ///
    /// # Errors
    /// It is none, a damaged one, of another version, or too large.
    pub fn contents(&mut self) -> Result<Contents, ArchiveError> {
        let (mut manifest, mut config) = (None, None);
        let mut unknown = Vec::new();
        self.entries(|name, entry| {
            match name {
                "manifest.json" => manifest = Some(document(name, entry, LARGEST_MANIFEST)?),
                "config.json" => config = Some(document(name, entry, LARGEST_CONFIG)?),
                _ if sheet_of(name).is_some() => {}
                _ => unknown.push(name.to_owned()),
            }
            Ok(())
        })?;
        let missing = |name| ArchiveError::Wrong(format!("Invalid backup archive: missing {name}"));
        let manifest: Value = manifest.ok_or_else(|| missing("manifest.json"))?;
        check_head(&manifest).map_err(ArchiveError::Wrong)?;
        let config = config.ok_or_else(|| missing("config.json"))?;
        Ok(Contents { config, unknown })
    }

    /// Shows every sheet that has rows, one after the other.
    ///
    /// # Errors
    /// What `see` says, and as [`Archive::contents`].
    pub fn sheets(
        &mut self,
        mut see: impl FnMut(&str, &mut dyn Read) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let limit = unpacked_limit(self.length);
        let total = guard::Total::new(limit);
        self.entries(|name, entry| match sheet_of(name) {
            Some((sheet, true)) => {
                let unpacked = MultiGzDecoder::new(entry);
                see(sheet, &mut Guard::new(unpacked, &total))
            }
            Some((sheet, false)) => see(sheet, entry),
            None => Ok(()),
        })
    }

    /// Shows every file. None is ever written anywhere; names lead nowhere.
    fn entries(
        &mut self,
        mut see: impl FnMut(&str, &mut dyn Read) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        self.file.rewind()?;
        let total = guard::Total::new(unpacked_limit(self.length));
        let unpacked = MultiGzDecoder::new(BufReader::new(&self.file));
        let mut tar = Tar::new(Guard::new(unpacked, &total));
        let mut seen = std::collections::HashSet::new();
        // Raw, so that long names are not gathered in memory for us.
        for entry in tar.entries()?.raw(true) {
            let mut entry = entry.map_err(unreadable)?;
            match entry.header().entry_type() {
                EntryType::XHeader | EntryType::XGlobalHeader => continue,
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Directory => continue,
                other => {
                    let message = format!(
                        "the archive has an entry of type {other:?}; plain files are wanted"
                    );
                    return Err(ArchiveError::Wrong(message));
                }
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if seen.len() >= MOST_ENTRIES {
                let message = format!("the archive has more than {MOST_ENTRIES} files");
                return Err(ArchiveError::Wrong(message));
            }
            if !seen.insert(name.clone()) {
                return Err(ArchiveError::Wrong(format!(
                    "the archive has {name:?} twice"
                )));
            }
            see(&name, &mut entry)?;
        }
        Ok(())
    }
}

/// What an archive of that many bytes may grow to. A sheet of like rows is
/// packed to a fiftieth; a bomb is a thousand times as large, or a million.
const fn unpacked_limit(length: u64) -> u64 {
    (1 << 30) + length.saturating_mul(300)
}

fn unreadable(error: io::Error) -> ArchiveError {
    ArchiveError::Wrong(format!("Unrecognized archive format: {error}"))
}

/// The sheet in a file of that name, and whether it is packed.
fn sheet_of(name: &str) -> Option<(&str, bool)> {
    let plain = |sheet: &str| {
        !sheet.is_empty()
            && sheet
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    };
    let packed = name.strip_suffix(".csv.gz").map(|sheet| (sheet, true));
    let found = packed.or_else(|| name.strip_suffix(".csv").map(|sheet| (sheet, false)));
    found.filter(|(sheet, _)| plain(sheet))
}

fn document(name: &str, entry: &mut dyn Read, limit: u64) -> Result<Value, ArchiveError> {
    let mut text = Vec::new();
    entry.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        let message = format!("{name} has more than {} MB", limit >> 20);
        return Err(ArchiveError::Wrong(message));
    }
    serde_json::from_slice(&text)
        .map_err(|error| ArchiveError::Wrong(format!("{name} is not JSON: {error}")))
}

/// Whether something says that it is a backup of a version that is known.
///
/// # Errors
/// What it says instead.
pub fn check_head(head: &Value) -> Result<(), String> {
    if head["plexus_backup"] != true {
        return Err("Invalid backup: missing plexus_backup field".to_owned());
    }
    match &head["version"] {
        version if version.as_u64() == Some(VERSION) => Ok(()),
        version => Err(format!(
            "Unsupported backup version {version} (expected {VERSION})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(files: &[(&str, &[u8])]) -> Archive {
        let mut tar = Builder::new(GzEncoder::new(
            tempfile::tempfile().unwrap(),
            Compression::fast(),
        ));
        for (name, content) in files {
            let mut content = *content;
            let mut header = Header::new_ustar();
            // As written by somebody who means harm: the library refuses such names.
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            tar.append(&header, &mut content).unwrap();
        }
        Archive::new(tar.into_inner().unwrap().finish().unwrap()).unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    const MANIFEST: &[u8] = br#"{"plexus_backup":true,"version":1}"#;

    #[test]
    fn manifest_and_configuration_are_found_in_any_order_and_strange_files_are_named() {
        let mut archive = packed(&[
            ("request_usage.csv", b""),
            ("config.json", b"{\"a\":1}"),
            ("../../etc/passwd", b"x"),
            ("./manifest.json", MANIFEST),
        ]);
        let contents = archive.contents().unwrap();
        assert_eq!(contents.config, json!({"a": 1}));
        assert_eq!(contents.unknown, ["../../etc/passwd"]);
        let mut seen = Vec::new();
        archive
            .sheets(|name, _| {
                seen.push(name.to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, ["request_usage"]);
    }

    #[test]
    fn what_is_no_backup_is_refused_with_what_is_missing() {
        for (files, wanted) in [
            (&[("config.json", &b"{}"[..])][..], "missing manifest.json"),
            (&[("manifest.json", MANIFEST)], "missing config.json"),
            (
                &[("manifest.json", b"{}"), ("config.json", b"{}")],
                "missing plexus_backup",
            ),
            (
                &[
                    ("manifest.json", br#"{"plexus_backup":true,"version":2}"#),
                    ("config.json", b"{}"),
                ],
                "Unsupported backup version 2 (expected 1)",
            ),
            (
                &[("manifest.json", MANIFEST), ("config.json", b"{")],
                "config.json is not JSON",
            ),
            (&[("a.csv", b""), ("a.csv", b"")], "twice"),
        ] {
            let error = packed(files).contents().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"no archive at all").unwrap();
        let error = Archive::new(file).unwrap().contents().unwrap_err();
        assert!(
            error.to_string().contains("Unrecognized archive format"),
            "{error}"
        );
    }

    #[test]
    fn a_bomb_is_stopped_before_it_has_grown() {
        // A gigabyte and more of like bytes, packed twice.
        let mut inner = GzEncoder::new(Vec::new(), Compression::best());
        let block = vec![b'x'; 1 << 20];
        for _ in 0..1400 {
            inner.write_all(&block).unwrap();
        }
        let mut archive = packed(&[("debug_logs.csv.gz", &gz_of(inner))]);
        let mut read = 0_u64;
        let error = archive
            .sheets(|_, from| {
                let mut buffer = vec![0; 1 << 16];
                loop {
                    match from.read(&mut buffer)? {
                        0 => return Ok(()),
                        more => read += more as u64,
                    }
                }
            })
            .unwrap_err();
        assert!(error.to_string().contains("grows to more than"), "{error}");
        assert!(read < 1400 << 20);
    }

    fn gz_of(encoder: GzEncoder<Vec<u8>>) -> Vec<u8> {
        encoder.finish().unwrap()
    }

    #[test]
    fn links_are_refused() {
        let mut tar = Builder::new(GzEncoder::new(
            tempfile::tempfile().unwrap(),
            Compression::fast(),
        ));
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "config.json", "/etc/passwd")
            .unwrap();
        let mut archive = Archive::new(tar.into_inner().unwrap().finish().unwrap()).unwrap();
        let error = archive.contents().unwrap_err();
        assert!(
            error.to_string().contains("plain files are wanted"),
            "{error}"
        );
    }

    #[test]
    fn only_plain_names_are_sheets() {
        assert_eq!(sheet_of("a_1.csv.gz"), Some(("a_1", true)));
        assert_eq!(sheet_of("a.csv"), Some(("a", false)));
        for name in ["../a.csv", "a/b.csv", ".csv", "A.csv", "a.txt", "a;b.csv"] {
            assert_eq!(sheet_of(name), None, "{name}");
        }
    }

    #[test]
    fn gzip_in_several_members_is_read_whole() {
        let two = [gz(b"a\n1\n"), gz(b"2\n")].concat();
        let mut archive = packed(&[("a.csv.gz", &two)]);
        let mut text = String::new();
        archive
            .sheets(|_, from| {
                from.read_to_string(&mut text)?;
                Ok(())
            })
            .unwrap();
        assert_eq!(text, "a\n1\n2\n");
    }
}
