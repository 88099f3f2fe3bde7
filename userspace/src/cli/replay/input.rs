//! The logs to go over: opened, unpacked, and put in the order of their times.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::read::MultiGzDecoder;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Now, Wall};

use crate::cli::CliError;
use crate::clock;
use crate::source::JournalEntry;

/// How much of a log is read to find its first time, in bytes.
const HEAD: u64 = 64 * 1024;

/// The first bytes of gzip's format (RFC 1952), and of those that are not read here.
const GZIP: &[u8] = &[0x1f, 0x8b];
const OTHERS: [(&[u8], &str); 3] = [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2")];

/// How far all logs together have been read, in bytes as they stand on disk.
pub(super) type BytesRead = Rc<Cell<u64>>;

/// An open log.
pub(super) struct Input {
    /// As it was named.
    pub(super) name: String,
    /// What stands in it, unpacked.
    pub(super) reader: Box<dyn Read>,
    /// The present by which its lines' missing years and zones are read: when it was last written.
    pub(super) now: Now,
    /// Its size on disk in bytes, where it has one.
    pub(super) size: Option<u64>,
    first: Option<Wall>,
}

/// Opens `files` and puts them in order of the first time that each names: rotated logs are often given newest first. One
/// without a time stays behind the one that it was given after.
///
/// # Errors
/// The first that cannot be read.
pub(super) fn open<'a>(
    files: impl IntoIterator<Item = &'a Path>,
    format: Format,
    real: &Now,
    read: &BytesRead,
) -> Result<Vec<Input>, CliError> {
    let mut inputs = Vec::new();
    let mut before = None;
    for path in files {
        let mut input = Input::open(path, format, real, read)?;
        input.first = input.first.or(before);
        before = input.first;
        inputs.push(input);
    }
    inputs.sort_by_key(|input| input.first);
    Ok(inputs)
}

impl Input {
    fn open(path: &Path, format: Format, real: &Now, read: &BytesRead) -> Result<Input, CliError> {
        let name = path.display().to_string();
        let fault = |source| CliError::Read { what: name.clone(), source };
        let (raw, size, now): (Box<dyn Read>, _, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None, *real)
        } else {
            let file = File::open(path).map_err(fault)?;
            let metadata = file.metadata().map_err(fault)?;
            let size = metadata.is_file().then_some(metadata.len());
            let now = if metadata.is_file() { written(metadata.modified(), real) } else { *real };
            (Box::new(file), size, now)
        };
        let mut raw = Counted { inner: raw, read: Rc::clone(read) };
        let start = beginning(&mut raw, 8).map_err(fault)?;
        if let Some((_, packer)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(CliError::Usage(format!(
                "{name} is compressed with {packer}; replay reads plain text and gzip: `{packer} -dc {name} | xdpban replay -`"
            )));
        }
        let packed = start.starts_with(GZIP);
        let raw = Cursor::new(start).chain(raw);
        let mut text: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
        let head = beginning(&mut text, HEAD).map_err(fault)?;
        let first = first_time(&head, format, &now);
        let reader = Box::new(Cursor::new(head).chain(text));
        Ok(Input { name, reader, now, size, first })
    }
}

/// The present when a log was last written, as a stamp without a year means the latest that was not ahead of it.
fn written(modified: io::Result<SystemTime>, real: &Now) -> Now {
    let since = modified.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let wall = since.and_then(|since| i64::try_from(since.as_micros()).ok()).map(Wall);
    match wall.filter(|wall| *wall < real.wall) {
        Some(wall) => Now { wall, utc_offset: clock::utc_offset(wall), ..*real },
        None => *real,
    }
}

/// The first bytes of `input`, `length` at most.
fn beginning(input: &mut dyn Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn first_time(head: &[u8], format: Format, now: &Now) -> Option<Wall> {
    head.split(|b| *b == b'\n').find_map(|line| match JournalEntry::parse(line) {
        Some(entry) => entry.record().time,
        None => Record::parse(line, format, now).time,
    })
}

/// Adds up what is read through it.
struct Counted {
    inner: Box<dyn Read>,
    read: BytesRead,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::time::Duration;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &str) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    }

    fn texts(files: &[PathBuf]) -> Vec<String> {
        let inputs =
            open(files.iter().map(PathBuf::as_path), Format::Syslog, &clock::now(), &BytesRead::default());
        inputs.unwrap().into_iter().map(|mut input| io::read_to_string(&mut input.reader).unwrap()).collect()
    }

    #[test]
    fn logs_are_unpacked_and_put_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let line = |day: u32| format!("2026-05-{day:02}T07:18:04Z gw1 sshd[7]: x\n");
        // gzip's members can follow each other in one file.
        let members = [gzip(&line(1)), gzip(&line(2))].concat();
        let files = [
            file("auth.log", line(4).as_bytes()),
            file("untold", b"no time\n"),
            file("auth.log.1", ["no time\n", &line(3)].concat().as_bytes()),
            file("auth.log.2.gz", &members),
            file("empty", b""),
        ];
        let expected = [line(1) + &line(2), String::new(), "no time\n".to_owned() + &line(3), line(4)];
        assert_eq!(texts(&files)[..4], expected);
        assert_eq!(texts(&files)[4], "no time\n");
    }

    #[test]
    fn what_cannot_be_unpacked_names_what_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.log.xz");
        fs::write(&path, b"\xfd7zXZ\0\0").unwrap();
        let opened = open([path.as_path()], Format::Syslog, &clock::now(), &BytesRead::default());
        let Err(error) = opened else { panic!("taken for text") };
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("xz -dc"), "{error}");
    }

    #[test]
    fn years_are_those_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.log");
        fs::write(&path, "Nov 23 01:36:31 gw1 sshd[7]: x\n").unwrap();
        // 2019-12-01
        let modified = UNIX_EPOCH + Duration::from_secs(1_575_158_400);
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let inputs = open([path.as_path()], Format::Syslog, &clock::now(), &BytesRead::default()).unwrap();
        let first = inputs[0].first.unwrap();
        assert!(clock::rfc3339(first).starts_with("2019-11-2"), "{}", clock::rfc3339(first));
    }
}
