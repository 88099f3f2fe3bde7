//! Follows a log file by its path through rotation, truncation, deletion and re-creation: a state machine that reads
//! when it is told to and blocks on nothing.
//!
//! Every whole line is handed out once, in the order in which it was written, with these exceptions, which cannot be
//! mended from here:
//! - what a rotation by copying (`copytruncate`) loses between the copy and the truncation;
//! - what stood unread in a file that was deleted, or compressed, while nobody had it open;
//! - the beginning of a line whose file was rotated or truncated before the line's end was written.
//!
//! A file that was rotated is left only when its successor holds data: a writer goes on with the old file until it
//! reopens its log, and by its first line in the new one it has written its last in the old.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memchr::memrchr;

use super::Position;
use super::lines::{Lines, Splitter};

/// How many of a file's first bytes tell it from another with the same inode, or a copy from a stranger.
const HEAD: usize = 256;

/// Of a directory's files whose names begin like the log's, how many are looked at when a rotated one is searched.
const MAX_SIBLINGS: usize = 1024;

/// Lines from the file, and where they end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Whole lines; none where only the position is news, since reading goes on in another file, or in the same one anew.
    pub(super) lines: Bytes,
    /// How many of them were cut.
    pub(super) cut: u32,
    /// Where reading goes on after them.
    pub(super) position: Position,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{path} does not exist; waiting for it to be created (if sshd logs elsewhere, name that file or the journal as source)", path = path.display())]
    Missing { path: PathBuf },
    #[error("{path} is {kind}, not a file; name a log file as source", path = path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error("cannot open {path}: {source}; {remedy}", path = path.display(), remedy = remedy(source))]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}: {source}; trying again every few seconds", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root, or give the controller's user the right to read it",
        _ => "trying again every few seconds",
    }
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A saved [`Position::File`].
#[derive(Clone, Copy, Debug)]
struct Mark {
    id: FileId,
    offset: u64,
    head: u64,
}

/// Where to begin when no file is open.
#[derive(Clone, Copy, Debug)]
enum Begin {
    /// At the end: what an old log says must not block anybody at the first start.
    End,
    /// At the beginning: the file did not exist when following began, so all of it is new.
    Start,
    /// Where reading stopped, wherever that file is by now.
    At(Mark),
}

/// Follows one path. Driven by [`Follower::read_available`]; told by [`Follower::look`] that the path may hold
/// another file.
pub(super) struct Follower {
    path: PathBuf,
    splitter: Splitter,
    /// The file that is being read; it may have been renamed or deleted.
    current: Option<Tail>,
    /// What to read after it, oldest first: rotated files, then the one at the path.
    next: VecDeque<Tail>,
    begin: Begin,
    /// Whether to compare the path with the open file when that one has been read to its end.
    look: bool,
}

impl Follower {
    /// Follows `path` from where reading stopped, or from its end.
    pub(super) fn new(path: &Path, from: Option<&Position>) -> Follower {
        let begin = match from {
            Some(&Position::File { device, inode, offset, head }) => {
                Begin::At(Mark { id: FileId { device, inode }, offset, head })
            }
            Some(Position::Journal { .. }) | None => Begin::End,
        };
        Follower {
            path: path.to_owned(),
            splitter: Splitter::new(),
            current: None,
            next: VecDeque::new(),
            begin,
            look: true,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub(super) fn file(&self) -> Option<&File> {
        self.current.as_ref().map(|tail| &tail.file)
    }

    /// Which file is open.
    pub(super) fn id(&self) -> Option<FileId> {
        self.current.as_ref().map(|tail| tail.id)
    }

    /// Notes that the path may hold another file.
    pub(super) fn look(&mut self) {
        self.look = true;
    }

    /// Reads on. Nothing means that all there is has been read, and that the path is in order.
    ///
    /// # Errors
    /// Why the path cannot be read. The file that was open before is still read to its end at each call.
    pub(super) fn read_available(&mut self) -> Result<Option<Piece>, Trouble> {
        loop {
            let Some(mut tail) = self.current.take() else {
                let first = self.first()?;
                return Ok(Some(self.switch_to(first)));
            };
            let step = match tail.read(&mut self.splitter) {
                Ok(step) => step,
                Err(source) => {
                    // Another try opens it anew, wherever it is by then.
                    self.begin = Begin::At(tail.mark());
                    self.splitter.clear();
                    return Err(Trouble::Read { path: self.path.clone(), source });
                }
            };
            if matches!(step, Step::Truncated) {
                let tail = self.after_truncation(tail);
                return Ok(Some(self.switch_to(tail)));
            }
            let (position, id) = (tail.position(), tail.id);
            self.current = Some(tail);
            if let Step::Lines(lines) = step {
                return Ok(Some(Piece { lines: lines.bytes, cut: lines.cut, position }));
            }
            if let Some(next) = self.next.pop_front() {
                return Ok(Some(self.switch_to(next)));
            }
            if self.look {
                self.next = self.successors(id)?;
            }
            // A file is read once more before it is left: its writer may have gone on until its successor was there.
            if self.next.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Reads `tail` from here on. That is news by itself: a restart must not look for the file before it.
    fn switch_to(&mut self, tail: Tail) -> Piece {
        let position = tail.position();
        self.splitter.clear();
        self.current = Some(tail);
        self.look = true;
        Piece { lines: Bytes::new(), cut: 0, position }
    }

    /// The open file, which was truncated, from its beginning, or from where its lines ended if no more than the half
    /// line after them is gone. If it was copied before, what stood unread in it is read from the copy first.
    fn after_truncation(&mut self, mut tail: Tail) -> Tail {
        let mark = tail.mark();
        if tail.go_to_mark(mark) {
            return tail;
        }
        tail.go_to(0, Vec::new());
        match self.rotated(mark) {
            Some(copy) => {
                self.next.push_front(tail);
                copy
            }
            None => tail,
        }
    }

    /// The file to begin with.
    fn first(&mut self) -> Result<Tail, Trouble> {
        match self.begin {
            Begin::Start => self.open_path(),
            Begin::End => match self.open_path() {
                Ok(mut tail) => match tail.go_to_end() {
                    Ok(()) => Ok(tail),
                    Err(source) => Err(Trouble::Read { path: self.path.clone(), source }),
                },
                Err(trouble) => {
                    if matches!(trouble, Trouble::Missing { .. }) {
                        self.begin = Begin::Start;
                    }
                    Err(trouble)
                }
            },
            Begin::At(mark) => self.resume(mark),
        }
    }

    /// The file in which reading stopped: the one at the path, or one that was rotated away since, or a copy of what
    /// stood at the path before it was truncated. Otherwise the one at the path, from its beginning.
    fn resume(&self, mark: Mark) -> Result<Tail, Trouble> {
        let mut at_path = self.open_path();
        if let Ok(tail) = &mut at_path
            && tail.id == mark.id
            && tail.go_to_mark(mark)
        {
            return at_path;
        }
        if let Some(tail) = self.rotated(mark) {
            return Ok(tail);
        }
        // It was truncated before it was rotated, or is another log with the same inode: new since then, all of it.
        let again = self.siblings().into_iter().find(|s| s.id == mark.id && s.rotation.is_some());
        match again.map(|sibling| open(&sibling.path)) {
            Some(Ok(tail)) if tail.id == mark.id => Ok(tail),
            _ => at_path,
        }
    }

    /// The file beside the log that `mark` was made in, or a copy of it, to be read from there.
    fn rotated(&self, mark: Mark) -> Option<Tail> {
        let siblings = self.siblings();
        let renamed = siblings.iter().filter(|sibling| sibling.id == mark.id);
        // A whole head is needed to know a copy by: the first bytes alone could be anybody's.
        let copies = siblings.iter().filter(|sibling| {
            mark.offset >= HEAD as u64 && sibling.rotation.is_some() && sibling.id != mark.id
        });
        for sibling in renamed.chain(copies) {
            // One that cannot be opened is no worse than one that is gone.
            if let Ok(mut tail) = open(&sibling.path)
                && tail.id == sibling.id
                && tail.go_to_mark(mark)
            {
                return Some(tail);
            }
        }
        None
    }

    /// What to read after the file `current`: those that were rotated after it, and the one at the path. Each holds
    /// data already.
    fn successors(&mut self, current: FileId) -> Result<VecDeque<Tail>, Trouble> {
        // The path is opened before the directory is listed: what is rotated meanwhile is found another time.
        let at_path = self.open_path();
        if let Ok(tail) = &at_path
            && tail.id == current
        {
            self.look = false;
            return Ok(VecDeque::new());
        }
        let until = at_path.as_ref().ok().map(|tail| tail.id);
        let mut next = self.between(current, until);
        match at_path {
            Ok(tail) if tail.size > 0 => next.push_back(tail),
            Ok(_) => {}
            Err(trouble) if next.is_empty() => return Err(trouble),
            Err(_) => {}
        }
        Ok(next)
    }

    /// The files that were rotated after `current` and before `until`, by the order of their names.
    fn between(&self, current: FileId, until: Option<FileId>) -> VecDeque<Tail> {
        let siblings = self.siblings();
        let Some(Some(last)) = siblings.iter().find(|s| s.id == current).map(|s| s.rotation.clone()) else {
            return VecDeque::new();
        };
        let mut later: Vec<_> = siblings
            .into_iter()
            .filter_map(|sibling| Some((sibling.rotation.clone()?, sibling)))
            .filter(|(rotation, _)| rotation.is_after(&last))
            .collect();
        later.sort_by(|(a, _), (b, _)| a.cmp(b));
        later
            .into_iter()
            .take_while(|(_, sibling)| Some(sibling.id) != until)
            .filter_map(|(_, sibling)| open(&sibling.path).ok().filter(|tail| tail.id == sibling.id))
            .filter(|tail| tail.size > 0)
            .collect()
    }

    fn open_path(&self) -> Result<Tail, Trouble> {
        open(&self.path)
    }

    /// The files beside the log whose names begin like its own. A directory that cannot be listed has none.
    fn siblings(&self) -> Vec<Sibling> {
        // Rotation happens where the file is, not where a symbolic link to it is.
        let real = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let (Some(directory), Some(name)) = (real.parent(), real.file_name()) else { return Vec::new() };
        let stem = real.file_stem().unwrap_or(name);
        let Ok(entries) = directory.read_dir() else { return Vec::new() };
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().as_bytes().starts_with(stem.as_bytes()))
            .take(MAX_SIBLINGS)
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(Metadata::is_file)?;
                let rotation = Rotation::from_name(&entry.file_name(), name);
                Some(Sibling { path: entry.path(), id: FileId::of(&metadata), rotation })
            })
            .collect()
    }
}

/// A file beside the log.
struct Sibling {
    path: PathBuf,
    id: FileId,
    rotation: Option<Rotation>,
}

/// What a rotated file's name says about its age. The order is from old to new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rotation {
    /// `auth.log.1` is newer than `auth.log.2`.
    Number(std::cmp::Reverse<u64>),
    /// `auth.log-20261123` is older than `auth.log-20261124`.
    Date(Vec<u8>),
}

impl Rotation {
    /// Reads `name` as a rotated form of `log`; a compressed file is none.
    fn from_name(name: &OsStr, log: &OsStr) -> Option<Rotation> {
        match name.as_bytes().strip_prefix(log.as_bytes())?.split_first()? {
            (b'.', number) if number.iter().all(u8::is_ascii_digit) => {
                Some(Rotation::Number(std::cmp::Reverse(std::str::from_utf8(number).ok()?.parse().ok()?)))
            }
            (b'-', date)
                if date.first().is_some_and(u8::is_ascii_digit)
                    && date.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') =>
            {
                Some(Rotation::Date(date.to_vec()))
            }
            _ => None,
        }
    }

    /// Whether this one was made after `other`, where the two names can be compared.
    fn is_after(&self, other: &Rotation) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self > other
    }
}

/// What one read gave.
enum Step {
    Lines(Lines),
    /// There is nothing beyond what was read.
    End,
    /// What was read is not there any more.
    Truncated,
}

/// An open file and how far it has been read.
struct Tail {
    file: File,
    id: FileId,
    /// Its size when that was last looked at.
    size: u64,
    /// The first byte that was not handed out, where a line begins.
    handed: u64,
    /// The first byte that was not read.
    read: u64,
    /// The file's first bytes, as far as they were read, at most [`HEAD`].
    head: Vec<u8>,
}

impl Tail {
    fn mark(&self) -> Mark {
        let length = usize::try_from(self.handed).unwrap_or(HEAD).min(self.head.len());
        Mark { id: self.id, offset: self.handed, head: hash(&self.head[..length]) }
    }

    fn position(&self) -> Position {
        let Mark { id: FileId { device, inode }, offset, head } = self.mark();
        Position::File { device, inode, offset, head }
    }

    /// Goes to `mark`, unless this is not the file that the mark was made in, or a copy of it.
    fn go_to_mark(&mut self, mark: Mark) -> bool {
        // A file that cannot be read is not known as anything; whoever reads it next says why.
        match self.head_before(mark.offset) {
            Ok(Some(head)) if self.size >= mark.offset && hash(&head) == mark.head => {
                self.go_to(mark.offset, head);
                true
            }
            _ => false,
        }
    }

    /// Goes to the end, or to where a line begins that is still being written: what is appended to that one must not
    /// pass for a line.
    fn go_to_end(&mut self) -> io::Result<()> {
        let mut end = self.size;
        let mut chunk = vec![0; 64 * 1024];
        while end > 0 {
            let length = usize::try_from(end).unwrap_or(chunk.len()).min(chunk.len());
            let begin = end - length as u64;
            self.file.read_exact_at(&mut chunk[..length], begin)?;
            if let Some(newline) = memrchr(b'\n', &chunk[..length]) {
                end = begin + newline as u64 + 1;
                break;
            }
            end = begin;
        }
        let head = self.head_before(end)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.go_to(end, head);
        Ok(())
    }

    fn go_to(&mut self, offset: u64, head: Vec<u8>) {
        self.handed = offset;
        self.read = offset;
        self.head = head;
    }

    /// The file's first bytes before `offset`, at most [`HEAD`]; none where it does not reach so far.
    fn head_before(&self, offset: u64) -> io::Result<Option<Vec<u8>>> {
        let mut head = vec![0; usize::try_from(offset).unwrap_or(HEAD).min(HEAD)];
        match self.file.read_exact_at(&mut head, 0) {
            Ok(()) => Ok(Some(head)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads until a line is complete, or to the end.
    fn read(&mut self, splitter: &mut Splitter) -> io::Result<Step> {
        loop {
            self.size = self.file.metadata()?.len();
            if self.size < self.read || !self.begins_as_before()? {
                return Ok(Step::Truncated);
            }
            if self.size == self.read {
                return Ok(Step::End);
            }
            let space = splitter.space();
            let read = match self.file.read_at(space, self.read) {
                Ok(0) => return Ok(Step::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.read == self.head.len() as u64 {
                let more = read.min(HEAD - self.head.len());
                self.head.extend_from_slice(&space[..more]);
            }
            self.read += read as u64;
            let lines = splitter.take(read);
            if lines.taken > 0 {
                self.handed += lines.taken;
                return Ok(Step::Lines(lines));
            }
        }
    }

    /// Whether the file's first bytes are what they were. A file that was truncated and has grown beyond what was
    /// read is known by this alone.
    fn begins_as_before(&self) -> io::Result<bool> {
        let mut buffer = [0; HEAD];
        let head = &mut buffer[..self.head.len()];
        match self.file.read_exact_at(head, 0) {
            Ok(()) => Ok(*head == *self.head),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Opens a regular file to be read from its beginning; nothing else is opened, since that alone may block or do things.
fn open(path: &Path) -> Result<Tail, Trouble> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Trouble::Missing { path: path.to_owned() },
        _ => Trouble::Open { path: path.to_owned(), source },
    };
    let regular = |metadata: &Metadata| match kind(metadata) {
        None => Ok(()),
        Some(kind) => Err(Trouble::NotAFile { path: path.to_owned(), kind }),
    };
    regular(&path.metadata().map_err(failed)?)?;
    // It may have become a FIFO since.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    regular(&metadata)?;
    let (id, size) = (FileId::of(&metadata), metadata.len());
    Ok(Tail { file, id, size, handed: 0, read: 0, head: Vec::new() })
}

/// What it is, unless it is a regular file.
fn kind(metadata: &Metadata) -> Option<&'static str> {
    let file_type = metadata.file_type();
    if file_type.is_file() {
        None
    } else if file_type.is_dir() {
        Some("a directory")
    } else if file_type.is_fifo() {
        Some("a FIFO")
    } else if file_type.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// FNV-1a, 64 bits: kept in the store, so it must be the same in every version.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::Write as _;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::source::MAX_LINE;

    /// A log, who writes it, and who follows it.
    struct Bench {
        directory: TempDir,
        follower: Follower,
        saved: Option<Position>,
        read: Vec<u8>,
    }

    impl Bench {
        fn new() -> Bench {
            let directory = tempfile::tempdir().unwrap();
            let follower = Follower::new(&directory.path().join("auth.log"), None);
            Bench { directory, follower, saved: None, read: Vec::new() }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn append(&self, name: &str, text: impl AsRef<[u8]>) {
            let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
            file.write_all(text.as_ref()).unwrap();
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).unwrap();
        }

        fn copytruncate(&self, from: &str, to: &str) {
            fs::copy(self.path(from), self.path(to)).unwrap();
            File::options().write(true).open(self.path(from)).unwrap().set_len(0).unwrap();
        }

        fn read_once(&mut self) -> Result<bool, Trouble> {
            let piece = self.follower.read_available()?;
            let more = piece.is_some();
            if let Some(piece) = piece {
                assert!(piece.lines.is_empty() || piece.lines.ends_with(b"\n"));
                self.read.extend_from_slice(&piece.lines);
                self.saved = Some(piece.position);
            }
            Ok(more)
        }

        /// Reads all there is, as after a word from inotify, and returns what was read since the last time.
        fn read(&mut self) -> String {
            self.follower.look();
            while self.read_once().unwrap_or(false) {}
            String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
        }

        fn restart(&mut self) {
            self.follower = Follower::new(&self.path("auth.log"), self.saved.as_ref());
        }
    }

    #[test]
    fn the_first_start_is_at_the_end_and_the_next_where_reading_stopped() {
        let mut bench = Bench::new();
        bench.append("auth.log", "old\nhalf of an old");
        assert_eq!(bench.read(), "");
        bench.restart();
        bench.append("auth.log", " line\nnew\n");
        assert_eq!(bench.read(), "half of an old line\nnew\n");
        bench.restart();
        assert_eq!(bench.read(), "");
    }

    #[test]
    fn a_file_that_was_not_there_is_read_from_its_beginning() {
        let mut bench = Bench::new();
        assert!(matches!(bench.follower.read_available(), Err(Trouble::Missing { .. })));
        bench.append("auth.log", "first\n");
        assert_eq!(bench.read(), "first\n");
    }

    #[test]
    fn half_lines_odd_bytes_and_long_lines() {
        let mut bench = Bench::new();
        bench.append("auth.log", "");
        bench.read();
        bench.append("auth.log", b"\xff\0");
        assert_eq!(bench.read(), "");
        bench.append("auth.log", b"\xfe\n");
        bench.follower.look();
        let piece = bench.follower.read_available().unwrap().unwrap();
        assert_eq!((piece.lines, piece.cut), (Bytes::from_static(b"\xff\0\xfe\n"), 0));
        bench.append("auth.log", [vec![b'x'; 300_000], b"\nshort\n".to_vec()].concat());
        let text = bench.read();
        assert_eq!(text.len(), MAX_LINE + 1 + 6);
        assert!(text.ends_with("x\nshort\n"));
    }

    #[test]
    fn what_the_writer_adds_to_the_rotated_file_comes_before_the_new_one() {
        let mut bench = Bench::new();
        bench.append("auth.log", "");
        bench.read();
        bench.rename("auth.log", "auth.log.1");
        bench.append("auth.log", "");
        bench.append("auth.log.1", "late\n");
        assert_eq!(bench.read(), "late\n");
        bench.append("auth.log.1", "later\n");
        bench.append("auth.log", "new\n");
        assert_eq!(bench.read(), "later\nnew\n");
    }

    #[test]
    fn rotations_while_nobody_watched() {
        for names in [["auth.log.2", "auth.log.1"], ["auth.log-20261122", "auth.log-20261123"]] {
            let mut bench = Bench::new();
            bench.append("auth.log", "");
            bench.read();
            bench.append("auth.log", "1\n");
            assert_eq!(bench.read(), "1\n");
            bench.append("auth.log", "2\n");
            bench.rename("auth.log", names[0]);
            bench.append("auth.log", "3\n");
            bench.rename("auth.log", names[1]);
            bench.append("auth.log", "4\n");
            // Neither of these is a rotated form of the log.
            bench.append("auth.log.3.gz", "no\n");
            bench.append("auth.log.bak", "no\n");
            bench.restart();
            assert_eq!(bench.read(), "2\n3\n4\n", "{names:?}");
        }
    }

    #[test]
    fn copytruncate_seen_and_unseen() {
        let mut bench = Bench::new();
        bench.append("auth.log", "");
        bench.read();
        bench.append("auth.log", "a line\n".repeat(100));
        bench.read();
        bench.copytruncate("auth.log", "auth.log.1");
        bench.append("auth.log", "short\n");
        assert_eq!(bench.read(), "short\n");
        // It grows beyond what was read before anybody looks, and what stood unread is in the copy.
        bench.append("auth.log", "the next line\n".repeat(50));
        bench.read();
        bench.append("auth.log", "unread\n");
        bench.rename("auth.log.1", "auth.log.2");
        bench.copytruncate("auth.log", "auth.log.1");
        let new = "another line\n".repeat(200);
        bench.append("auth.log", &new);
        assert_eq!(bench.read(), format!("unread\n{new}"));
        bench.append("auth.log", "x\n");
        bench.restart();
        assert_eq!(bench.read(), "x\n");
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let mut bench = Bench::new();
        bench.append("auth.log", "");
        bench.read();
        bench.append("auth.log", "old\n");
        bench.read();
        let Some(Position::File { device, offset, head, .. }) = bench.saved else { panic!() };
        fs::remove_file(bench.path("auth.log")).unwrap();
        bench.append("auth.log", "new\nnewer\n");
        let inode = bench.path("auth.log").metadata().unwrap().ino();
        bench.saved = Some(Position::File { device, inode, offset, head });
        bench.restart();
        assert_eq!(bench.read(), "new\nnewer\n");
    }

    #[test]
    fn what_is_no_file_is_said_and_waited_out() {
        let mut bench = Bench::new();
        let path = bench.path("auth.log");
        fs::create_dir(&path).unwrap();
        let trouble = bench.follower.read_available().unwrap_err().to_string();
        assert!(trouble.contains("is a directory, not a file"), "{trouble}");
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let trouble = bench.follower.read_available().unwrap_err().to_string();
        assert!(trouble.contains("is a FIFO, not a file"), "{trouble}");
        fs::remove_file(&path).unwrap();
        bench.append("auth.log", "old\n");
        assert_eq!(bench.read(), "", "it was not missing at the start, so it is old");
        bench.append("auth.log", "new\n");
        assert_eq!(bench.read(), "new\n");
    }

    #[test]
    fn a_symbolic_link_is_followed_to_where_rotation_happens() {
        let mut bench = Bench::new();
        fs::create_dir(bench.path("real")).unwrap();
        bench.append("real/log", "");
        std::os::unix::fs::symlink(bench.path("real/log"), bench.path("auth.log")).unwrap();
        bench.read();
        bench.append("real/log", "1\n");
        bench.rename("real/log", "real/log.1");
        bench.append("real/log", "2\n");
        bench.restart();
        assert_eq!(bench.read(), "1\n2\n");
    }

    #[derive(Clone, Debug)]
    enum Action {
        Append {
            lines: usize,
            length: usize,
        },
        AppendHalf,
        AppendToRotated,
        Rotate,
        CopyTruncate,
        Delete,
        Create,
        Read,
        /// As after a mere write: the path is not compared.
        ReadOnce,
        Restart,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            6 => (1..6usize, prop_oneof![8 => 0..400usize, 1 => MAX_LINE - 40..MAX_LINE + 40])
                .prop_map(|(lines, length)| Action::Append { lines, length }),
            2 => Just(Action::AppendHalf),
            1 => Just(Action::AppendToRotated),
            3 => Just(Action::Rotate),
            1 => Just(Action::CopyTruncate),
            1 => Just(Action::Delete),
            2 => Just(Action::Create),
            5 => Just(Action::Read),
            2 => Just(Action::ReadOnce),
            2 => Just(Action::Restart),
        ]
    }

    /// What was written, and which of it may be lost.
    struct World {
        bench: Bench,
        dated: bool,
        /// The files that were rotated, oldest first.
        rotated: Vec<String>,
        rotations: usize,
        /// The number of the next line.
        next: usize,
        /// Whether the last line in the file at the path lacks its end.
        half: bool,
        /// Whether a writer may still have the latest of them open: the file at the path came by its renaming.
        renamed: bool,
        /// The lines in the file at the path, and in one that was deleted while it was open.
        here: BTreeSet<usize>,
        gone: BTreeSet<usize>,
        /// Whether the file that is read was deleted, so that its place among the others is not known.
        adrift: bool,
        written: BTreeSet<usize>,
        may_be_lost: BTreeSet<usize>,
        found: Vec<usize>,
    }

    impl World {
        fn new(dated: bool) -> World {
            let mut bench = Bench::new();
            bench.append("auth.log", "");
            bench.read();
            World {
                bench,
                dated,
                rotated: Vec::new(),
                rotations: 0,
                next: 0,
                half: false,
                renamed: false,
                here: BTreeSet::new(),
                gone: BTreeSet::new(),
                adrift: false,
                written: BTreeSet::new(),
                may_be_lost: BTreeSet::new(),
                found: Vec::new(),
            }
        }

        fn exists(&self) -> bool {
            self.bench.path("auth.log").exists()
        }

        fn is_open(&self) -> bool {
            let metadata = self.bench.path("auth.log").metadata();
            metadata.is_ok_and(|metadata| self.bench.follower.id() == Some(FileId::of(&metadata)))
        }

        fn line(&mut self, length: usize) -> String {
            self.next += 1;
            format!("{} {}\n", self.next, "x".repeat(length))
        }

        /// Writes whole lines, after the end of the one that lacks it.
        fn append(&mut self, lines: usize, length: usize) {
            if !self.exists() {
                return;
            }
            let mut text = String::new();
            if std::mem::take(&mut self.half) {
                text.push('\n');
                self.here.insert(self.next);
                self.written.insert(self.next);
            }
            for _ in 0..lines {
                text.push_str(&self.line(length));
                self.here.insert(self.next);
                self.written.insert(self.next);
            }
            self.bench.append("auth.log", text);
        }

        fn unread(&self, lines: &BTreeSet<usize>) -> BTreeSet<usize> {
            lines.iter().copied().filter(|line| !self.found.contains(line)).collect()
        }

        /// Frees the name for the next file.
        fn rotate(&mut self, copy: bool) {
            self.rotations += 1;
            self.renamed = !copy;
            if self.dated {
                self.rotated.push(format!("auth.log-{}", 20_260_000 + self.rotations));
            } else {
                self.rotated.push(String::new());
                let count = self.rotated.len();
                for (index, name) in self.rotated.iter_mut().enumerate() {
                    let shifted = format!("auth.log.{}", count - index);
                    if !name.is_empty() {
                        self.bench.rename(name, &shifted);
                    }
                    *name = shifted;
                }
            }
            let to = self.rotated.last().unwrap();
            if copy {
                self.bench.copytruncate("auth.log", to);
            } else {
                self.bench.rename("auth.log", to);
                self.bench.append("auth.log", "");
            }
            if copy || (self.adrift && !self.is_open()) {
                self.may_be_lost.extend(self.unread(&self.here));
            }
            self.here.clear();
            self.half = false;
        }

        fn act(&mut self, action: Action) {
            match action {
                Action::Append { lines, length } => self.append(lines, length),
                Action::AppendHalf => {
                    if self.exists() && !self.half {
                        let line = self.line(10);
                        self.bench.append("auth.log", line.trim_end());
                        self.half = true;
                    }
                }
                Action::AppendToRotated => {
                    // Only a writer that has not reopened its log does this, so the new file is empty.
                    let empty = self.bench.path("auth.log").metadata().is_ok_and(|new| new.len() == 0);
                    if let Some(name) = self.rotated.last().cloned()
                        && empty
                        && self.renamed
                        && fs::read(self.bench.path(&name)).unwrap().ends_with(b"\n")
                    {
                        let line = self.line(5);
                        self.bench.append(&name, line);
                        self.written.insert(self.next);
                        // It may have been passed by, if it is not the one that is open.
                        let open = self.bench.path(&name).metadata().unwrap();
                        if self.bench.follower.id() != Some(FileId::of(&open)) {
                            self.may_be_lost.insert(self.next);
                        }
                    }
                }
                Action::Rotate => {
                    if self.exists() {
                        self.rotate(false);
                    }
                }
                Action::CopyTruncate => {
                    if self.exists() {
                        self.rotate(true);
                    }
                }
                Action::Delete => {
                    if self.exists() {
                        let unread = self.unread(&self.here);
                        if self.is_open() {
                            self.gone.extend(unread);
                        } else {
                            self.may_be_lost.extend(unread);
                        }
                        self.adrift = true;
                        self.renamed = false;
                        self.here.clear();
                        self.half = false;
                        fs::remove_file(self.bench.path("auth.log")).unwrap();
                    }
                }
                Action::Create => {
                    if !self.exists() {
                        self.bench.append("auth.log", "");
                    }
                }
                Action::Read => self.read(),
                Action::ReadOnce => {
                    self.bench.read_once().ok();
                    self.gather();
                }
                Action::Restart => {
                    let gone = std::mem::take(&mut self.gone);
                    self.may_be_lost.extend(self.unread(&gone));
                    self.bench.restart();
                }
            }
        }

        fn read(&mut self) {
            self.bench.follower.look();
            while self.bench.read_once().unwrap_or(false) {}
            self.gather();
            if self.is_open() {
                self.adrift = false;
            }
        }

        fn gather(&mut self) {
            for line in std::mem::take(&mut self.bench.read).split_inclusive(|byte| *byte == b'\n') {
                assert!(line.ends_with(b"\n") && line.len() <= MAX_LINE + 1);
                let number = line.split(|byte| *byte == b' ').next().unwrap();
                self.found.push(std::str::from_utf8(number).unwrap().parse().unwrap());
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]
        #[test]
        fn every_line_comes_once_and_in_order(dated: bool, actions in prop::collection::vec(action(), 1..60)) {
            let mut world = World::new(dated);
            for action in actions {
                world.act(action);
            }
            // What was written last is whole, so that all is read up to it.
            world.act(Action::Create);
            world.append(1, 0);
            world.read();
            prop_assert!(world.found.is_sorted_by(|a, b| a < b), "{:?}", world.found);
            let found: BTreeSet<_> = world.found.iter().copied().collect();
            let missing: Vec<_> = world.written.difference(&found).collect();
            prop_assert!(missing.iter().all(|line| world.may_be_lost.contains(line)), "{missing:?} are missing");
            let invented: Vec<_> = found.difference(&world.written).collect();
            prop_assert!(invented.is_empty(), "{invented:?} were never completed");
        }
    }
}
